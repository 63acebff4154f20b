// What a wet glove, a bright sky and a screen reader need, measured on the page as it is laid out.
(() => {
  const problems = [];
  const seen = (each) => each.getClientRects().length > 0 && getComputedStyle(each).visibility !== "hidden";
  if (document.documentElement.scrollWidth > innerWidth) problems.push("the page scrolls sideways");
  for (const each of document.querySelectorAll("a, button, summary, input:not([type=hidden]):not([type=radio]), label.choice")) {
    if (!seen(each) || each.classList.contains("skip")) continue;
    const { width, height } = each.getBoundingClientRect();
    if (width < 48 || height < 48) problems.push(`small: ${each.textContent || each.id} ${width}×${height}`);
  }
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const each = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !seen(each) || ["STYLE", "SCRIPT"].includes(each.tagName)) continue;
    const [one, two] = [light(getComputedStyle(each).color), light(ground(each))];
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (contrast < 7) problems.push(`pale: ${walker.currentNode.data.trim()} ${contrast.toFixed(1)}`);
  }
  if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");
  if (!document.documentElement.lang) problems.push("no language");
  return problems;
})()
