// Looks at the pages in this document's frames, in which scripts are switched off, and writes down the faults that a
// reader would see, and the text of the pages.
'use strict';

const complaints = [];
let texts = 0;

function luminance([red, green, blue]) {
  const linear = [red, green, blue].map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function contrast(one, other) {
  const [dark, light] = [one, other].map((color) => luminance(color.match(/[\d.]+/g).map(Number))).sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

function name(element) {
  return element.textContent.trim().slice(0, 40);
}

function look(frame) {
  const page = frame.contentDocument;
  const view = frame.contentWindow;
  const complain = (what) => complaints.push(`${frame.title}: ${what}`);
  const root = page.documentElement;

  // A page must fit with its folds closed and open. Everything else is looked at with all folds open.
  if (root.scrollWidth > root.clientWidth) complain('is too wide before its folds are open');
  for (const fold of page.querySelectorAll('details')) fold.open = true;

  // What a frame cannot do by itself: the reader's choice of colours.
  if (frame.dataset.dark !== undefined && !view.matchMedia('(prefers-color-scheme: dark)').matches) {
    complain('is not dark');
  }
  if (root.scrollWidth > root.clientWidth) {
    complain(`is ${root.scrollWidth - root.clientWidth} px too wide`);
  }
  if (view.performance.getEntriesByType('resource').length > 0) {
    complain('fetched something');
  }
  for (const foreign of page.querySelectorAll('script, img, iframe, object, embed, link, a, form')) {
    complain(`has a ${foreign.localName}`);
  }
  if (frame.dataset.paper !== undefined) {
    for (const table of page.querySelectorAll('.scroll')) {
      if (table.scrollWidth > table.clientWidth) {
        complain(`${name(table)}: cut by ${table.scrollWidth - table.clientWidth} px`);
      }
    }
  }

  const paper = view.getComputedStyle(page.body).backgroundColor;
  for (const element of page.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest('title, desc')) continue;
    const style = view.getComputedStyle(element);
    const color = element.localName === 'text' ? style.fill : style.color;
    if (contrast(color, paper) < 4.5) complain(`${name(element)}: hardly seen, ${color} on ${paper}`);
  }

  for (const picture of page.querySelectorAll('svg[role=img]')) {
    const frameBox = picture.getBoundingClientRect();
    const seen = [...picture.querySelectorAll('text')].map((text) => [name(text), text.getBoundingClientRect()]);
    const boxes = seen.filter(([, box]) => box.width > 0);
    texts += boxes.length;
    const what = picture.querySelector('title').textContent;
    boxes.forEach(([text, box], place) => {
      if (box.left < frameBox.left - 1 || box.right > frameBox.right + 1 || box.bottom > frameBox.bottom + 1) {
        complain(`${what}: \`${text}\` is cut off`);
      }
      if (box.height < 8.5) complain(`${what}: \`${text}\` is ${box.height.toFixed(1)} px high`);
      for (const [other, beside] of boxes.slice(place + 1)) {
        const across = Math.min(box.right, beside.right) - Math.max(box.left, beside.left);
        const along = Math.min(box.bottom, beside.bottom) - Math.max(box.top, beside.top);
        if (across > 1 && along > 2) complain(`${what}: \`${text}\` is on \`${other}\``);
      }
    });
  }

  // Switching a series off takes its line away, and nothing else.
  for (const box of page.querySelectorAll('figure input')) {
    const line = box.closest('figure').querySelector(`.s${box.className.slice(1)}`);
    const shown = () => view.getComputedStyle(line).display !== 'none';
    const before = shown();
    box.click();
    if (!before || shown()) complain(`${box.className} switches nothing`);
    box.click();
  }
}

window.addEventListener('load', () => {
  const frames = [...document.querySelectorAll('iframe')];
  frames.forEach(look);
  document.getElementById('complaints').textContent = complaints.slice(0, 30).join('\n');
  document.getElementById('words').textContent = frames.map((frame) => frame.contentDocument.body.innerText).join('\n');
  document.getElementById('looked').textContent = `${frames.length} pages, ${texts} texts`;
});
