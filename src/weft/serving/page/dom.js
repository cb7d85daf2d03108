// Elements made and found. Nothing is ever parsed as HTML: text stays text.

const SVG = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

/** An element. Properties that begin with `on` are listeners; `color` is the colour that a phrase and its boxes share. */
export function h(tag, properties = {}, ...children) {
  return made(document.createElement(tag), properties, children);
}

export function s(tag, properties = {}, ...children) {
  return made(document.createElementNS(SVG, tag), properties, children);
}

function made(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith('aria-')) node.setAttribute(name, value);
    else if (value === false) continue;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'color') node.style.setProperty('--own', value);
    else node.setAttribute(name === 'className' ? 'class' : name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

export const icon = (name) => s('svg', { className: 'icon', 'aria-hidden': 'true' }, s('use', { href: `#icon-${name}` }));

/** A button with an icon and, where `shown`, its label beside it. */
export function button(label, name, onclick, { className = 'plain', shown = true, ...more } = {}) {
  const text = shown ? h('span', {}, label) : null;
  return h('button', { type: 'button', className, onclick, 'aria-label': shown ? null : label, title: shown ? null : label, ...more }, icon(name), text);
}

/** Says something to who listens instead of looking. */
export function announce(text) {
  $('announce').textContent = text;
}

export function save(blob, name) {
  const link = h('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

for (const dialog of document.querySelectorAll('dialog')) {
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog || event.target.closest('[data-close]')) dialog.close();
  });
}
