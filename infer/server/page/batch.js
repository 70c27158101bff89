// Asks about many pictures, some at a time, and gives the answers as a table with `vlm vqa`'s columns.
import {$, download, make, percent, postChat, problemOf, tell} from './basics.js';
import {isMedium, mediaPart} from './media.js';
import {choicesOf, schemaOf, settingsBody} from './settings.js';
import {readRows, toCsv, toJsonl} from './tables.js';

const FILE_COLUMNS = ['image', 'file_name', 'path', 'images', 'video'];
const MOST_SHOWN = 500;  // rows on the page; the files have all
const AGAIN = [429, 503];

let items = [];        // {id, path, file, question, columns, row: null until it is done}
let isRunning = false, isPaused = false;
let asked = {};        // the settings of this run

// ---- What is asked

const pathOf = (file) => file.path ?? (file.webkitRelativePath || file.name);

// Folders that are dropped: their files, with the path of each.
async function filesOfEntry(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    file.path = entry.fullPath.replace(/^\//, '');
    files.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const inner of entries) await filesOfEntry(inner, files);
  }
}

export async function addToBatch(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = entries.length ? [] : [...transfer.files];
  for (const entry of entries) await filesOfEntry(entry, files);
  await take(files);
}

// A row's file: by its whole path, or below the table's folder.
function findFile(byPath, table, name) {
  const folder = pathOf(table).split('/').slice(0, -1);
  return byPath.get([...folder, name].join('/')) ?? byPath.get(name);
}

function itemOfRow(row, number, table, byPath) {
  const column = FILE_COLUMNS.find((name) => typeof row[name] === 'string' && row[name]);
  const {question, id, ...rest} = row;
  const columns = Object.fromEntries(Object.entries(rest).filter(([name]) => name !== column));
  const file = column && findFile(byPath, table, row[column]);
  return {id: String(id ?? `${table.name}:${number}`), path: column ? row[column] : '', file, question: question ?? '',
          columns,
          problem: !column ? `no picture: one of the columns ${FILE_COLUMNS.join(', ')} names it`
                   : file ? '' : `${row[column]} is not among the files`};
}

async function take(files) {
  if (isRunning || !files.length) return;
  tell('');
  const media = files.filter((file) => isMedium(file) && !pathOf(file).split('/').some((part) => part.startsWith('.')));
  const tables = files.filter((file) => /\.(csv|jsonl)$/i.test(file.name));
  media.sort((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1));
  items = [];
  try {
    const byPath = new Map(media.map((file) => [pathOf(file), file]));
    for (const table of tables) {
      const first = /\.csv$/i.test(table.name) ? 2 : 1;  // as an editor counts lines
      const rows = await readRows(table);
      items.push(...rows.map((row, i) => itemOfRow(row, i + first, table, byPath)));
    }
  } catch (error) {
    return tell(error.message);
  }
  if (!tables.length) {
    items = media.map((file) => ({id: pathOf(file), path: pathOf(file), file, columns: {}, problem: ''}));
  }
  for (const item of items) item.row = null;
  const others = files.length - media.length - tables.length;
  $('batch_found').textContent = `${items.length} ${tables.length ? 'rows' : 'pictures and clips'}` +
    (others ? `, ${others} other files left out` : '');
  $('batch_question').placeholder =
    tables.length ? 'For rows without a question of their own' : 'One question for all pictures';
  showRows();
}

// ---- Asking

const round = (value) => (value === undefined || value === null ? null : Math.round(value * 1e6) / 1e6);

// The answer as `vlm vqa` has it.
function answerColumns(reply) {
  const choice = reply.choices[0];
  const text = choice.message.content;
  const probabilities = reply.vlm?.probabilities;
  if (probabilities) {
    const rounded = Object.fromEntries(Object.entries(probabilities).map(([name, value]) => [name, round(value)]));
    return {text, probability: rounded[text], probabilities: rounded};
  }
  const columns = {text};
  if (asked.schema) {
    try {
      columns.json = JSON.parse(text);
    } catch {
      return {...columns, error: 'the answer is no whole JSON'};
    }
    for (const name of Object.keys(asked.schema.properties ?? {})) columns[`json.${name}`] = columns.json[name];
  }
  const sure = reply.vlm ?? {};
  return {...columns, mean_logprob: round(sure.mean_logprob), min_logprob: round(sure.min_logprob),
          finish_reason: choice.finish_reason, first_token_entropy: round(sure.first_token_entropy)};
}

async function ask(item) {
  if (item.problem) throw new Error(item.problem);
  const content = [await mediaPart({blob: item.file, type: item.file.type, name: item.path}),
                   {type: 'text', text: item.question || asked.question}];
  const messages = [{role: 'user', content}];
  if (asked.system) messages.unshift({role: 'system', content: asked.system});
  for (;;) {
    const response = await postChat({model: asked.model, messages, ...asked.body, vlm: {confidence: true}});
    if (response.ok) return answerColumns(await response.json());
    if (!AGAIN.includes(response.status)) throw new Error(await problemOf(response));
    const wait = Number(response.headers.get('Retry-After')) || 2;
    await new Promise((resolve) => setTimeout(resolve, 1000 * wait));
  }
}

async function work() {
  for (let item; !isPaused && (item = items.find((one) => !one.row && !one.isTaken));) {
    item.isTaken = true;
    const row = {id: item.id, path: item.path, question: item.question || asked.question, ...item.columns};
    try {
      Object.assign(row, await ask(item));
    } catch (error) {
      row.error = error.message;
    }
    item.row = row;
    item.isTaken = false;
    showRow(row);
    showState();
  }
}

async function run() {
  tell('');
  try {
    asked = {model: $('model').value, system: $('system').value, question: $('batch_question').value.trim(),
             schema: schemaOf(), choices: choicesOf(), body: settingsBody()};
  } catch (error) {
    return tell(error.message);
  }
  if (items.some((item) => !item.row && !item.problem && !item.question) && !asked.question) {
    return tell('Give a question for the pictures');
  }
  isRunning = true;
  isPaused = false;
  showState();
  const width = Math.min(4, Math.max(1, Number($('batch_width').value) || 2));
  await Promise.all(Array.from({length: width}, work));
  isRunning = false;
  showState();
}

// ---- Rows

const rowsOf = () => items.map((item) => item.row).filter(Boolean);

function showRow(row) {
  const sure = row.probability ?? (row.mean_logprob === undefined ? undefined : Math.exp(row.mean_logprob));
  const line = make('tr', {className: row.error ? 'failed' : ''}, make('td', {textContent: row.path}),
                    make('td', {textContent: row.question}), make('td', {textContent: row.error ?? row.text}),
                    make('td', {textContent: sure === undefined ? '' : percent(sure)}));
  const body = $('batch_rows').tBodies[0];
  body.append(line);
  while (body.rows.length > MOST_SHOWN) body.rows[0].remove();
}

function showRows() {
  $('batch_rows').tBodies[0].replaceChildren();
  rowsOf().slice(-MOST_SHOWN).forEach(showRow);
  showState();
}

function showState() {
  const rows = rowsOf();
  const failed = rows.filter((row) => row.error).length;
  const hasLeft = rows.length < items.length;
  $('batch_rows').hidden = !rows.length;
  $('batch_progress').hidden = !items.length;
  $('batch_progress').max = Math.max(items.length, 1);
  $('batch_progress').value = rows.length;
  const state = isRunning && isPaused ? ', pausing' : !isRunning && rows.length && hasLeft ? ', paused' : '';
  $('batch_state').textContent = items.length ? `${rows.length} of ${items.length} done, ${failed} errors${state}` : '';
  $('batch_start').textContent = rows.length ? 'Go on' : 'Start';
  $('batch_start').disabled = isRunning || !hasLeft;
  $('batch_pause').hidden = !isRunning;
  $('batch_retry').hidden = isRunning || !failed;
  $('batch_csv').disabled = $('batch_jsonl').disabled = !rows.length;
}

// The columns in `vlm vqa`'s order, those of the input behind the question.
function headerOf() {
  const own = [...new Set(items.flatMap((item) => Object.keys(item.columns)))];
  const properties = Object.keys(asked.schema?.properties ?? {}).map((name) => `json.${name}`);
  const json = asked.schema ? ['json', ...properties] : [];
  const sure = asked.choices.length ? ['probability', 'probabilities']
                                    : [...json, 'mean_logprob', 'min_logprob', 'finish_reason', 'first_token_entropy'];
  return ['id', 'path', 'question', ...own, 'text', ...sure, 'error'];
}

for (const [pick, input] of [['batch_pick_folder', 'batch_folder'], ['batch_pick', 'batch_files']]) {
  $(pick).addEventListener('click', () => $(input).click());
  $(input).addEventListener('change', async (event) => {
    await take([...event.target.files]);
    event.target.value = '';
  });
}
$('batch_start').addEventListener('click', run);
$('batch_pause').addEventListener('click', () => {
  isPaused = true;
  showState();
});
$('batch_retry').addEventListener('click', () => {
  for (const item of items) {
    if (item.row?.error) item.row = null;
  }
  showRows();
  run();
});
$('batch_csv').addEventListener('click', () => download('answers.csv', 'text/csv', toCsv(headerOf(), rowsOf())));
$('batch_jsonl').addEventListener('click', () => download('answers.jsonl', 'application/jsonl', toJsonl(rowsOf())));
