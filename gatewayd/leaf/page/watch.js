// Looks every two seconds, and changes only what has changed: focus, scroll and what a screen reader reads stay put.
const url = location.href;
let missed = 0;
setInterval(async () => {
  let text;
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(8000) });
    text = await answer.text();
    missed = 0;
  } catch {
    missed += 1;
  }
  document.getElementById("offline").hidden = missed < 3;
  if (text === undefined) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (!fresh.getElementById("now")) return location.reload();
  for (const id of ["now", "qr", "steps", "rest"]) {
    const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
    if (old.innerHTML !== next.innerHTML) old.replaceChildren(...next.childNodes);
  }
}, 2000);
