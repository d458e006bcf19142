// Rules of a page that somebody has to read; each returns what breaks them.

// Contrast as WCAG 2 defines it, of every text that is seen against what is behind it.
const contrast = () => {
  const parts = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const line = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b);
  const behind = (place) => {
    for (; place; place = place.parentElement) {
      const found = parts(getComputedStyle(place).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const low = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const place = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !place.checkVisibility() || place.closest("svg,script,style")) continue;
    const style = getComputedStyle(place);
    const [a, b] = [light(parts(style.color)), light(behind(place))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.add(`${ratio.toFixed(2)} ${place.tagName}.${place.className}: ${texts.currentNode.data.trim().slice(0, 40)}`);
  }
  return [...low];
};

// What a screen reader and a narrow window need: a language, one main part, headings that skip no
// level, names for what can be used, nothing wider than the window.
const landmarks = () => {
  const wrong = [];
  const all = (words) => [...document.querySelectorAll(words)].filter((e) => e.checkVisibility());
  if (!document.documentElement.lang) wrong.push("no language");
  if (all("main").length !== 1 || all("header").length !== 1) wrong.push("not one main and one header");
  let level = 0;
  for (const head of all("h1,h2,h3,h4,h5,h6")) {
    const found = Number(head.tagName[1]);
    if (found > level + 1) wrong.push(`${head.tagName} after H${level}: ${head.textContent.trim()}`);
    level = found;
  }
  for (const e of all("button,a[href],input,select,[role=img],nav,summary")) {
    const name = e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
    if (!name.trim()) wrong.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of all("section[aria-labelledby]")) {
    if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push(`no title: ${e.id}`);
  }
  const ids = all("[id]").map((e) => e.id);
  if (new Set(ids).size !== ids.length) wrong.push("two places of one name");
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`wider than the window: ${document.documentElement.scrollWidth}`);
  return wrong;
};
