// A small part of Markdown → nodes: headings, lists, quotes, code, emphasis. All else stays text, links and pictures
// too: what stands in a photo can steer a model, and an address that is fetched would tell of it.
import {make} from './basics.js';

const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\*[^*\s][^*\n]*\*)/;
const ITEM = /^\s*([-*+]|\d{1,9}[.)])\s+(.*)$/;

function inline(text) {
  const nodes = [];
  let rest = text;
  for (let match; (match = INLINE.exec(rest)); rest = rest.slice(match.index + match[0].length)) {
    if (match.index) nodes.push(rest.slice(0, match.index));
    const [whole, code, strong] = match;
    if (code) nodes.push(make('code', {textContent: whole.slice(1, -1)}));
    else if (strong) nodes.push(make('strong', {textContent: whole.slice(2, -2)}));
    else nodes.push(make('em', {textContent: whole.slice(1, -1)}));
  }
  return rest ? [...nodes, rest] : nodes;
}

// Takes lines from the front as long as they fit.
function takeWhile(lines, fits) {
  const taken = [];
  while (lines.length && fits(lines[0])) taken.push(lines.shift());
  return taken;
}

function fence(lines) {
  const mark = /^\s*(`{3,})/.exec(lines.shift())[1];
  const code = takeWhile(lines, (line) => line.trim() !== mark);
  lines.shift();
  return make('pre', {}, make('code', {textContent: code.join('\n')}));
}

function list(lines) {
  const isNumbered = /\d/.test(ITEM.exec(lines[0])[1]);
  const items = takeWhile(lines, (line) => ITEM.test(line) && /\d/.test(ITEM.exec(line)[1]) === isNumbered);
  const first = parseInt(ITEM.exec(items[0])[1], 10);
  return make(isNumbered ? 'ol' : 'ul', isNumbered ? {start: first} : {},
              ...items.map((line) => make('li', {}, ...inline(ITEM.exec(line)[2]))));
}

const isFence = (line) => /^\s*`{3,}/.test(line);
const isHeading = (line) => /^#{1,6}\s/.test(line);
const isQuote = (line) => line.startsWith('>');
const isBlank = (line) => !line.trim();

export function markdown(text) {
  const lines = text.split('\n');
  const nodes = [];
  while (lines.length) {
    const line = lines[0];
    if (isBlank(line)) {
      lines.shift();
    } else if (isFence(line)) {
      nodes.push(fence(lines));
    } else if (isHeading(line)) {
      const [, marks, heading] = /^(#{1,6})\s+(.*)$/.exec(lines.shift()) ?? [0, '#', line];
      nodes.push(make(`h${Math.min(marks.length + 2, 6)}`, {}, ...inline(heading)));
    } else if (isQuote(line)) {
      const quoted = takeWhile(lines, isQuote).map((one) => one.replace(/^>\s?/, ''));
      nodes.push(make('blockquote', {}, ...inline(quoted.join('\n'))));
    } else if (ITEM.test(line)) {
      nodes.push(list(lines));
    } else {
      const words = takeWhile(lines, (one) => !isBlank(one) && !isFence(one) && !isHeading(one) && !isQuote(one) &&
                                              !ITEM.test(one));
      nodes.push(make('p', {}, ...inline(words.join('\n'))));
    }
  }
  return nodes;
}
