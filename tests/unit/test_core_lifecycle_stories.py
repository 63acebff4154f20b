"""A device's generations, driven along the table by every story that Hypothesis can tell: CAs that answer in every way
or whose answer is lost, hubs that accept or do not, crashes anywhere, keys that vanish, and revocations.

The interpreter below is the plainest one that the table allows; what is tested is the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewayd.core import lifecycle
from gatewayd.core.lifecycle import Action, Event
from gatewayd.core.model import CredentialState as S

REFUSALS = [Event.REJECTED, Event.UNCONFIGURED, Event.NEEDS_NEW_KEY, Event.DEFERRED, Event.FAILED]


@dataclass
class Generation:
    state: S
    number: int
    key: bool = False
    on_record: bool = False
    """Whether its certificate is in the books."""
    unclear: bool = False
    """An earlier request's outcome is unknown."""


class Stories(RuleBasedStateMachine):
    @initialize()
    def a_device_begins(self) -> None:
        self.generations: list[Generation] = []
        self.minted: list[int] = []
        """At the CA: the generation of each certificate."""
        self.had_one = False
        self.revoked = False
        self.want()

    def want(self) -> None:
        if not self.under_way():
            self.generations.append(Generation(S.WANTED, len(self.generations)))

    def under_way(self) -> list[Generation]:
        return [each for each in self.generations if each.state in lifecycle.UNFINISHED]

    def happens(self, generation: Generation, event: Event) -> None:
        generation.state, actions = lifecycle.step(generation.state, event)
        if Action.SWITCH in actions:
            self.had_one = True
            for other in self.generations:
                if other is not generation and other.state in lifecycle.USABLE:
                    self.happens(other, Event.SUPERSEDED)
        if Action.COLLECT_KEY in actions:
            generation.key = False
        if Action.BEGIN_ANEW in actions:
            self.want()

    # --- what happens ----------------------------------------------------------------------------

    @precondition(lambda self: not self.revoked and not self.under_way())
    @rule()
    def a_renewal_is_due(self) -> None:
        self.want()

    @precondition(lambda self: not self.revoked and self.under_way())
    @rule(
        answer=st.sampled_from([Event.ISSUED, Event.WORKING, Event.UNREACHABLE, *REFUSALS]),
        arrives=st.booleans(),
        accepted=st.sampled_from([Event.ACCEPTED, Event.FAILED, Event.EXPIRED, Event.NEEDS_NEW_KEY]),
        crash=st.booleans(),
    )
    def a_step_is_taken(self, answer: Event, arrives: bool, accepted: Event, crash: bool) -> None:
        """``arrives``: whether the CA has minted although no answer came; ``crash``: before the outcome is known."""
        generation = self.under_way()[0]
        if generation.state in lifecycle.IN_PROGRESS:
            generation.state = lifecycle.recover(generation.state)
            generation.unclear = True
        generation.state, (action, *_) = lifecycle.step(generation.state, Event.START)
        match action:
            case Action.MAKE_KEY:
                generation.key = True
                outcome = Event.KEY_MADE
            case Action.REQUEST:
                outcome = self.request(generation, answer, arrives)
            case _:
                outcome = accepted
        if crash:
            return
        if outcome is Event.ISSUED:
            generation.on_record, generation.unclear = True, False
        generation.unclear |= outcome in (Event.UNREACHABLE, Event.WORKING)
        self.happens(generation, outcome)

    def request(self, generation: Generation, answer: Event, arrives: bool) -> Event:
        if generation.unclear:  # it looks first
            if answer is Event.UNREACHABLE and not arrives:
                return answer
            if generation.number in self.minted:
                return Event.ISSUED
        if answer is Event.ISSUED or (answer is Event.UNREACHABLE and arrives):
            self.minted.append(generation.number)
        return answer

    @precondition(lambda self: not self.revoked and any(each.state is S.PREVIOUS for each in self.generations))
    @rule()
    def the_previous_one_expires(self) -> None:
        for each in self.generations:
            if each.state is S.PREVIOUS:
                self.happens(each, Event.EXPIRED)

    @precondition(lambda self: self.generations and not self.revoked)
    @rule()
    def the_device_is_revoked(self) -> None:
        """What was minted and not recorded is looked for first, as the engine's winding up does."""
        self.revoked = True
        for each in self.generations:
            each.on_record |= each.number in self.minted
            if each.state is not S.REVOKED:
                self.happens(each, Event.REVOKED)

    @precondition(lambda self: self.revoked)
    @rule()
    def another_device_takes_its_place(self) -> None:
        self.a_device_begins()

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def there_is_a_usable_credential_once_one_existed(self) -> None:
        usable = [each for each in self.generations if each.state in lifecycle.USABLE]
        assert usable or self.revoked or not self.had_one
        assert all(each.key and each.on_record for each in usable)

    @invariant()
    def at_most_one_is_current_and_at_most_one_under_way(self) -> None:
        assert sum(each.state is S.CURRENT for each in self.generations) == (self.had_one and not self.revoked)
        assert len(self.under_way()) <= 1

    @invariant()
    def every_certificate_is_accounted_for_and_none_is_minted_twice(self) -> None:
        assert len(set(self.minted)) == len(self.minted)
        for number in self.minted:
            generation = self.generations[number]
            assert generation.on_record or generation in self.under_way()

    @invariant()
    def whatever_is_unfinished_can_go_on(self) -> None:
        assert all(Event.START in lifecycle.TABLE[lifecycle.recover(each.state)] for each in self.under_way())


TestStories = Stories.TestCase
TestStories.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
