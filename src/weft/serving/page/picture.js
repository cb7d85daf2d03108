// A picture with regions on it: shown, marked by hand, and drawn into a file.

import { $, h, s, button } from './dom.js';

// As weft draws: ten colours that are told apart side by side.
export const PALETTE = ['#e6194b', '#3cb44b', '#4363d8', '#f58231', '#42d4f4', '#f032e6', '#ffe119', '#911eb4', '#bfef45', '#469990'];
export const color = (number) => PALETTE[number % PALETTE.length];

/** A figure of the picture; `regions` are {boxes, label, number}. A click opens the viewer, if `onregion` is given. */
export function picture(medium, regions = [], onregion = null) {
  const image = h('img', { src: medium.url, alt: described(medium, regions), width: medium.width, height: medium.height });
  const drawn = regions.flatMap((region) => region.boxes.map((box) => ({ ...region, box })));
  drawn.sort((a, b) => area(b.box) - area(a.box)); // what is small lies on top, where the pointer finds it
  const frame = h('div', { className: 'frame' }, image, outlines(drawn), drawn.map(tag));
  if (!onregion) return h('figure', {}, frame);
  const mark = button('Mark a region', 'region', () => view(medium, onregion), { className: 'round mark', shown: false });
  return h('figure', {}, frame, mark);
}

function described(medium, regions) {
  const names = regions.map(({ label }) => label).filter(Boolean);
  return names.length ? `${medium.name}, marked on it: ${names.join(', ')}` : medium.name;
}

const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);

function outlines(drawn) {
  const rects = drawn.map(({ box: [left, top, right, bottom], number }) => {
    const place = { x: 100 * left, y: 100 * top, width: 100 * (right - left), height: 100 * (bottom - top) };
    return s('g', { className: 'box', 'data-number': number, color: number === undefined ? null : color(number) }, s('rect', { ...place, className: 'edge' }), s('rect', place));
  });
  return s('svg', { className: 'boxes', viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, rects);
}

function tag({ box: [left, top, right], label, number }) {
  if (number === undefined) return null;
  const node = h('span', { className: 'tag', 'data-number': number, 'aria-hidden': 'true', color: color(number) }, label);
  node.style.color = dark(color(number)) ? '#fff' : '#111';
  node.style.top = `${100 * top}%`;
  if (left + right > 1.2) node.style.right = `${100 * (1 - right)}%`;
  else node.style.left = `${100 * left}%`;
  if (top < 0.08) node.classList.add('below');
  return node;
}

function dark(hex) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
}

/** The picture as PNG with its regions drawn on it, labels on filled plates; small ones enlarged. */
export async function annotated(medium, regions) {
  const image = new Image();
  image.src = medium.url;
  await image.decode();
  const scale = Math.max(1, 512 / Math.max(medium.width, medium.height));
  const canvas = h('canvas', { width: Math.round(scale * medium.width), height: Math.round(scale * medium.height) });
  const { width, height } = canvas;
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0, width, height);
  const line = Math.max(3, Math.round(Math.max(width, height) / 240));
  pen.font = `600 ${Math.max(12, Math.round(Math.max(width, height) / 42))}px system-ui, sans-serif`;
  pen.textBaseline = 'top';
  for (const { boxes, label, number } of regions) {
    for (const [left, top, right, bottom] of boxes) {
      const place = [left * width, top * height, (right - left) * width, (bottom - top) * height];
      for (const [style, wide] of [['rgb(0 0 0 / .55)', line + 2], [color(number), line]]) {
        pen.strokeStyle = style;
        pen.lineWidth = wide;
        pen.strokeRect(...place);
      }
      const high = parseInt(pen.font.split(' ')[1], 10) * 1.4;
      const wide = pen.measureText(label).width + high / 2;
      const [x, y] = [Math.max(0, Math.min(place[0], width - wide)), place[1] >= high ? place[1] - high : place[1]];
      pen.fillStyle = color(number);
      pen.fillRect(x, y, wide, high);
      pen.fillStyle = dark(color(number)) ? '#fff' : '#111';
      pen.fillText(label, x + high / 4, y + high * 0.16);
    }
  }
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

/** A small picture of one region. */
export function crop({ medium, box: [left, top, right, bottom] }) {
  const [wide, high] = [(right - left) * medium.width, (bottom - top) * medium.height];
  const scale = 64 / Math.max(wide, high);
  const canvas = h('canvas', { width: Math.max(1, scale * wide), height: Math.max(1, scale * high), 'aria-hidden': 'true' });
  const image = new Image();
  image.onload = () => canvas.getContext('2d').drawImage(image, left * medium.width, top * medium.height, wide, high, 0, 0, canvas.width, canvas.height);
  image.src = medium.url;
  return canvas;
}

// -- marking a region ---------------------------------------------------------------------------------------------------

const LEAST = 0.01; // of a side: less is a click
const STEP = 0.02;

/** Opens the viewer; `onregion` is called with {medium, box} when one was marked. */
export function view(medium, onregion) {
  let box = null;
  const rects = [s('rect', { className: 'edge' }), s('rect', {})];
  const lines = s('svg', { className: 'boxes own', viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, s('g', {}, rects));
  const frame = h('div', { className: 'frame', tabindex: 0, role: 'application', 'aria-label': `${medium.name}. Arrow keys move a region, with Shift they resize it, Enter takes it.` }, h('img', { src: medium.url, alt: '', draggable: 'false', width: medium.width, height: medium.height }), lines);
  const put = (next) => {
    box = next;
    const [left, top, right, bottom] = box.map((value) => 100 * value);
    const place = Object.entries({ x: left, y: top, width: right - left, height: bottom - top });
    rects.forEach((rect) => place.forEach(([name, value]) => rect.setAttribute(name, value)));
    $('use-region').disabled = box[2] - box[0] < LEAST || box[3] - box[1] < LEAST;
  };
  const take = () => {
    if ($('use-region').disabled) return;
    $('viewer').close();
    onregion({ medium, box: box.map((value) => Math.round(1e4 * value) / 1e4) });
  };
  pointed(frame, put);
  frame.addEventListener('keydown', (event) => {
    const [x, y] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [];
    if (event.key === 'Enter') take();
    if (x === undefined) return;
    event.preventDefault();
    put(moved(box ?? [0.25, 0.25, 0.75, 0.75], x, y, event.shiftKey));
  });
  $('canvas').replaceChildren(frame);
  $('use-region').disabled = true;
  $('use-region').onclick = take;
  $('viewer').showModal();
  frame.focus();
}

function moved([left, top, right, bottom], x, y, resize) {
  if (resize) return [left, top, Math.max(left + STEP, Math.min(1, right + x)), Math.max(top + STEP, Math.min(1, bottom + y))];
  const [dx, dy] = [Math.max(-left, Math.min(1 - right, x)), Math.max(-top, Math.min(1 - bottom, y))];
  return [left + dx, top + dy, right + dx, bottom + dy];
}

function pointed(frame, put) {
  let from = null;
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height].map((value) => Math.max(0, Math.min(1, value)));
  };
  frame.addEventListener('pointerdown', (event) => {
    from = at(event);
    frame.setPointerCapture(event.pointerId);
    put([...from, ...from]);
  });
  frame.addEventListener('pointermove', (event) => {
    if (!from) return;
    const to = at(event);
    put([Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])]);
  });
  for (const end of ['pointerup', 'pointercancel']) frame.addEventListener(end, () => { from = null; });
}
