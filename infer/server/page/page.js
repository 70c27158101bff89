// The conversation: asks the server about pictures and clips, and shows the answer while it comes. What a model writes
// is only ever put into the page as text.
import {$, asCurl, asPython, button, copyButton, eventsOf, getJson, make, percent, postChat, problemOf,
        tell} from './basics.js';
import {addToBatch} from './batch.js';
import {keep, showHistory} from './history.js';
import {markdown} from './markdown.js';
import {isMedium, mediaPart, openCamera, thumbnail} from './media.js';
import {listModels, schemaOf, settingsBody} from './settings.js';
import {showTraining} from './training.js';

// Turns: {role: 'user', text, media: [{blob, type, name}]}, {role: 'assistant', answers: [{model, text}]}.
let conversation = newConversation();
let waiting = [];    // media that go with the next question
let running = null;  // AbortController of the answers that are coming, of this conversation

function newConversation() {
  return {id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, turns: []};
}

// ---- Pictures and clips

function addFiles(files) {
  tell('');
  for (const file of files) {
    if (isMedium(file)) waiting.push({blob: file, type: file.type, name: file.name});
    else tell(`${file.name} is no picture or clip`);
  }
  showWaiting();
}

function showWaiting() {
  $('media').replaceChildren(...waiting.map((medium, i) => make('li', {}, thumbnail(medium), button('×', () => {
    waiting.splice(i, 1);
    showWaiting();
  }, {title: `Remove ${medium.name}`}))));
}

// ---- Requests

// What a model has said itself, where it was asked; else what the first one did.
const textOf = (turn, model) => turn.text ?? (turn.answers.find((one) => one.model === model) ?? turn.answers[0]).text;

async function bodyOf(model) {
  const body = {model, messages: [], ...settingsBody()};
  if ($('system').value) body.messages.push({role: 'system', content: $('system').value});
  for (const turn of conversation.turns) {
    const text = textOf(turn, model);
    const parts = await Promise.all((turn.media ?? []).map(mediaPart));
    body.messages.push({role: turn.role, content: parts.length ? [...parts, {type: 'text', text}] : text});
  }
  if ($('certainty').checked && !body.structured_outputs) Object.assign(body, {logprobs: true, top_logprobs: 5});
  return body;
}

// ---- The conversation on the page

function showMedia(turn) {
  if (!turn.media?.length) return [];
  return [make('ul', {className: 'shown'}, ...turn.media.map((one) => make('li', {}, thumbnail(one))))];
}

function showQuestion(turn) {
  const facts = make('div', {className: 'facts'}, button('Edit', () => edit(turn)));
  const text = make('div', {className: 'text', textContent: turn.text});
  const item = make('li', {className: 'user'}, ...showMedia(turn), text, facts);
  $('turns').append(item);
  item.scrollIntoView({block: 'end'});
}

function showAnswers(models) {
  const shown = models.map((model) => {
    const text = make('div', {className: 'text'});
    const facts = make('div', {className: 'facts'});
    const name = models.length > 1 ? [make('div', {className: 'model', textContent: model})] : [];
    return {text, facts, answer: make('div', {className: 'answer'}, ...name, text, facts)};
  });
  const item = make('li', {className: 'assistant'}, ...shown.map((one) => one.answer));
  $('turns').append(item);
  item.scrollIntoView({block: 'end'});
  return shown;
}

function showConversation() {
  $('turns').replaceChildren();
  for (const turn of conversation.turns) {
    if (turn.role === 'user') {
      showQuestion(turn);
      continue;
    }
    showAnswers(turn.answers.map((one) => one.model)).forEach((shown, i) => {
      shown.text.append(...finished(turn.answers[i].text));
      shown.facts.append(copyButton('Copy', () => turn.answers[i].text), button('Again', () => askAgain(turn)));
    });
  }
}

// An answer that is whole: JSON in lines where a schema was asked for, else Markdown.
function finished(text, schema = null) {
  if (!schema) return markdown(text);
  try {
    const json = JSON.stringify(JSON.parse(text), null, 2);
    return [make('pre', {}, make('code', {textContent: json})),
            make('details', {}, make('summary', {textContent: 'satisfies the schema'}),
                 make('pre', {textContent: JSON.stringify(schema, null, 2)}))];
  } catch {
    return [text];  // cut in the middle
  }
}

// Words on a ground that is the darker the less sure the model was; what else it might have said is in the title.
function showPiece(shown, choice) {
  const tokens = choice.logprobs?.content ?? [];
  if (!tokens.length || tokens.some((token) => token.token.includes('\ufffd'))) {
    shown.text.append(choice.delta.content);
    return;
  }
  for (const token of tokens) {
    const others = token.top_logprobs.map((one) => `${JSON.stringify(one.token)} ${percent(Math.exp(one.logprob))}`);
    const word = make('span', {textContent: token.token, title: others.join('\n')});
    word.style.backgroundColor = `rgb(220 120 0 / ${(0.6 * (1 - Math.exp(token.logprob))).toFixed(2)})`;
    shown.text.append(word);
  }
}

function showProbabilities(shown, probabilities) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  shown.text.after(...sorted.map(([text, value]) => make(
    'div', {className: 'bar'}, make('span', {textContent: text}), make('meter', {value}),
    make('span', {textContent: percent(value)}))));
}

function showFacts(shown, text, body, facts, turn) {
  const parts = [];
  if (facts.usage) parts.push(`${facts.usage.prompt_tokens} + ${facts.usage.completion_tokens} tokens`);
  if (facts.first) parts.push(`first after ${(facts.first / 1000).toFixed(2)} s`);
  const after = (facts.end - facts.first) / 1000;
  if (facts.usage?.completion_tokens > 1 && after > 0 && !body.structured_outputs) {  // choices come at once
    parts.push(`then ${((facts.usage.completion_tokens - 1) / after).toFixed(1)} tokens/s`);
  }
  if (facts.finish === 'length') parts.push('cut at the limit');
  if (facts.stopped) parts.push('stopped');
  shown.facts.append(...parts.map((part) => make('span', {textContent: part})),
                     copyButton('Copy', () => text), copyButton('Copy as curl', () => asCurl(body)),
                     copyButton('Copy as Python', () => asPython(body)), button('Again', () => askAgain(turn)));
}

// ---- Asking

// Streams one model's answer into its place; its text, and what is known of it.
async function stream(body, shown, signal) {
  const facts = {start: performance.now(), first: 0};
  let text = '';
  try {
    const response = await postChat({...body, stream: true, stream_options: {include_usage: true}}, signal);
    if (!response.ok) throw new Error(await problemOf(response));
    for await (const event of eventsOf(response)) {
      facts.usage = event.usage ?? facts.usage;
      if (event.vlm?.probabilities) showProbabilities(shown, event.vlm.probabilities);
      const choice = event.choices[0];
      if (!choice) continue;
      facts.finish = choice.finish_reason ?? facts.finish;
      if (!choice.delta.content) continue;
      facts.first ||= performance.now() - facts.start;
      text += choice.delta.content;
      showPiece(shown, choice);
    }
  } catch (error) {
    facts.stopped = error.name === 'AbortError';
    if (!facts.stopped) tell(error.message);
  }
  facts.end = performance.now() - facts.start;
  return {text, facts};
}

// Asks the model that is chosen, and the one beside it. False: nothing came. Another conversation may have been opened
// meanwhile; the answer is this one's then.
async function answer(signal) {
  const current = conversation;
  const models = [...new Set([$('model').value, $('compare').value])].filter(Boolean);
  const schema = schemaOf();
  const bodies = await Promise.all(models.map(bodyOf));
  const places = showAnswers(models);
  const turn = {role: 'assistant', answers: []};
  const results = await Promise.all(bodies.map((body, i) => stream(body, places[i], signal)));
  if (!results.some(({text, facts}) => text || facts.usage)) {
    places[0].answer.parentElement.remove();
    return current !== conversation;
  }
  results.forEach(({text, facts}, i) => {
    if (!bodies[i].logprobs) places[i].text.replaceChildren(...finished(text, schema));
    showFacts(places[i], text, bodies[i], facts, turn);
    turn.answers.push({model: models[i], text});
  });
  current.turns.push(turn);
  await keep(current);
  return true;
}

function setBusy(isBusy) {
  $('send').disabled = isBusy;
  $('stop').hidden = !isBusy;
}

// Answers the last question. Where nothing came, it is in the form again, to be changed and sent.
async function answerLast() {
  const question = conversation.turns.at(-1);
  const own = running = new AbortController();
  setBusy(true);
  let isAnswered = false;
  try {
    isAnswered = await answer(own.signal);
  } catch (error) {
    tell(error.message);
  }
  if (running === own) {
    running = null;
    setBusy(false);
  }
  if (!isAnswered) takeBack(question);
}

// The question goes back into the form, and what was said behind it goes.
function takeBack(turn) {
  conversation.turns.length = conversation.turns.indexOf(turn);
  $('question').value = turn.text;
  waiting = [...turn.media];
  showWaiting();
  showConversation();
}

async function send() {
  if (running) return;
  tell('');
  const turn = {role: 'user', text: $('question').value, media: waiting};
  if (!turn.text.trim() && !turn.media.length) return;
  try {
    settingsBody();
  } catch (error) {
    return tell(error.message);
  }
  conversation.turns.push(turn);
  showQuestion(turn);
  $('question').value = '';
  waiting = [];
  showWaiting();
  await answerLast();
}

// A conversation that takes another way is a new one: the old one stays in the history.
function branch() {
  conversation = {...newConversation(), turns: [...conversation.turns]};
}

function edit(turn) {
  if (running) return;
  branch();
  takeBack(turn);
  $('question').focus();
}

async function askAgain(turn) {
  if (running || !conversation.turns.includes(turn)) return;
  tell('');
  branch();
  conversation.turns.length = conversation.turns.indexOf(turn);
  showConversation();
  await answerLast();
}

function open(next) {
  running?.abort();
  running = null;
  setBusy(false);
  conversation = next;
  tell('');
  showConversation();
  select('ask');
}

// ---- The page

const TABS = ['ask', 'batch', 'training', 'history'];

function select(tab) {
  for (const name of TABS) {
    $(`${name}_panel`).hidden = name !== tab;
    $(`${name}_tab`).setAttribute('aria-selected', name === tab);
  }
  $('settings').hidden = tab !== 'ask' && tab !== 'batch';
  if (tab === 'history') showHistory(open).catch((error) => tell(error.message));
  if (tab === 'training') showTraining();
}

for (const name of TABS) $(`${name}_tab`).addEventListener('click', () => select(name));
$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
$('question').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$('stop').addEventListener('click', () => running?.abort());
$('pick').addEventListener('click', () => $('files').click());
$('files').addEventListener('change', (event) => {
  addFiles([...event.target.files]);
  event.target.value = '';
});
$('camera').addEventListener('click', () => openCamera((picture) => {
  waiting.push(picture);
  showWaiting();
}));
$('again').addEventListener('click', () => open(newConversation()));
document.addEventListener('paste', (event) => {
  if (event.clipboardData.files.length && !$('ask_panel').hidden) addFiles(event.clipboardData.files);
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('over');
});
document.addEventListener('dragleave', () => document.body.classList.remove('over'));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('over');
  if ($('batch_panel').hidden) addFiles(event.dataTransfer.files);
  else addToBatch(event.dataTransfer);
});

async function start() {
  await listModels();
  const props = await getJson('props');
  $('training_tab').hidden = !props.vlm?.training;
}

start().catch((error) => tell(error.message));
