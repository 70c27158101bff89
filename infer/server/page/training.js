// The curve of a fine-tuning, growing while it runs.
import {$, make, getJson, tell} from './basics.js';

const WAIT_MS = 2000;
const WIDTH = 800, HEIGHT = 320, MARGIN = 56;
const NO_CURVE = new Set(['step', 'epoch']);

let place = {file: '', next: 0};
let rows = [];
let timer = 0;

function draw(name, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const pointsOf = (key) => rows.filter((row) => Number.isFinite(row[key]) && Number.isFinite(row.step))
  .map((row) => [row.step, row[key]]);

const shortNumber = (value) => Number(value.toPrecision(4)).toString();

// A line for a key, points for the evaluation's own, which are few.
function chartOf(keys) {
  const curves = keys.map(pointsOf).filter((points) => points.length);
  if (!curves.length) return make('p', {className: 'hint', textContent: 'No value yet.'});
  const all = curves.flat();
  const xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  const low = Math.min(...ys), high = Math.max(...ys), first = Math.min(...xs), last = Math.max(...xs);
  const x = (value) => MARGIN + (WIDTH - 2 * MARGIN) * (value - first) / (last - first || 1);
  const y = (value) => HEIGHT - MARGIN / 2 - (HEIGHT - MARGIN) * (value - low) / (high - low || 1);
  const label = (text, left, top, anchor) => {
    const element = draw('text', {x: left, y: top, 'text-anchor': anchor});
    element.textContent = text;
    return element;
  };
  const marks = [label(shortNumber(high), MARGIN - 6, y(high) + 4, 'end'),
                 label(shortNumber(low), MARGIN - 6, y(low) + 4, 'end'),
                 label(`step ${first}`, x(first), HEIGHT - 4, 'start'),
                 label(`step ${last}`, x(last), HEIGHT - 4, 'end'),
                 draw('path', {class: 'axis', d: `M${MARGIN} ${y(high)}V${y(low)}H${WIDTH - MARGIN}`})];
  curves.forEach((points, number) => {
    const line = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
    marks.push(draw('polyline', {class: `curve curve${number}`, points: line}));
    if (points.length > 60) return;
    marks.push(...points.map(([step, value]) => draw(
      'circle', {class: `dot${number}`, cx: x(step), cy: y(value), r: 3})));
  });
  const name = `Curve of ${keys.join(' and ')}`;
  return draw('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': name}, ...marks);
}

function showKeys() {
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))]
    .filter((key) => !NO_CURVE.has(key) && pointsOf(key).length);
  const shown = [...$('training_key').options].map((option) => option.value);
  if (keys.join() === shown.join()) return;
  const chosen = $('training_key').value || 'loss';
  $('training_key').replaceChildren(...keys.map((key) => make('option', {value: key, textContent: key})));
  if (keys.includes(chosen)) $('training_key').value = chosen;
}

function show() {
  showKeys();
  const key = $('training_key').value;
  $('training_chart').replaceChildren(chartOf(key === 'loss' ? ['loss', 'eval_loss'] : [key]));
  const steps = rows.map((row) => row.step).filter(Number.isFinite);
  $('training_state').textContent = steps.length ? `step ${Math.max(...steps)}, ${rows.length} rows` : 'no rows yet';
  $('training_last').replaceChildren(...[...$('training_key').options].map(({value}) => make(
    'tr', {}, make('th', {textContent: value}),
    make('td', {textContent: shortNumber(pointsOf(value).at(-1)[1])}))));
}

async function look() {
  timer = 0;
  try {
    let answer;
    do {
      answer = await getJson(`v1/training?from=${place.next}&file=${place.file}`);
      if (answer.from === 0) rows = [];
      rows.push(...answer.rows);
      place = {file: answer.file, next: answer.next};
    } while (answer.rows.length && answer.next < answer.size);
    show();
  } catch (error) {
    tell(error.message);
  }
  if (!$('training_panel').hidden && !timer) timer = setTimeout(look, WAIT_MS);
}

$('training_key').addEventListener('change', show);

// While the tab is shown.
export function showTraining() {
  clearTimeout(timer);
  look();
}
