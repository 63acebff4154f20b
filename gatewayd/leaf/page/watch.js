// Looks every two seconds, and changes only what has changed: focus, scroll and what a screen reader reads stay put.
let missed = 0;
const look = async () => {
  let fresh;
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(8000) });
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    missed = 0;
  } catch {
    missed += 1;
  }
  document.getElementById("offline").hidden = missed < 3;
  if (fresh) {
    if (!fresh.getElementById("now")) return location.reload(); // the session is over
    for (const id of ["now", "qr", "steps", "rest"]) {
      const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
      if (old.innerHTML !== next.innerHTML) old.replaceChildren(...next.childNodes);
    }
    if (!fresh.querySelector("script")) return; // there is nothing more to come
  }
  setTimeout(look, 2000);
};
setTimeout(look, 2000);
