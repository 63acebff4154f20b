"""The cloud's half of the way ``report``: hears what gateways report, acts in the hub's registry, and answers.

It is the only one with rights on the hub, so it believes nothing but what the hub itself stamps on a message, and lets
a gateway speak for itself and its own children alone (``decision.py``). All it does is idempotent: messages come at
least once.

``message.py`` and ``decision.py`` are pure; ``service.py`` acts; what brings the messages is thin and elsewhere: the
Azure Functions app in ``packaging/azure-function``, and ``python -m gatewayd.upstream.responder``, which reads them as
lines from stdin.
"""
