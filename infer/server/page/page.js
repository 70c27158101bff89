// Asks the server about pictures and clips, and shows the answer while it comes. What a model writes is only ever put
// into the page as text.
'use strict';

const $ = (id) => document.getElementById(id);
const conversation = [];  // {role, text, media: [{url, type, name}]}
let waiting = [];         // media that go with the next question
let running = null;       // AbortController of the answer that is coming

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function tell(problem) {
  $('problem').textContent = problem;
  $('problem').hidden = !problem;
}

// The server's answer to a request; asks for a key when one is needed.
async function reach(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem('key');
    const headers = {...options.headers, ...(key ? {Authorization: `Bearer ${key}`} : {})};
    const response = await fetch(path, {...options, headers});
    if (response.status !== 401) return response;
    await askForKey();
  }
}

function askForKey() {
  return new Promise((resolve, reject) => {
    const dialog = $('key_dialog');
    dialog.addEventListener('close', () => {
      if (!$('key').value) return reject(new Error('no key was given'));
      sessionStorage.setItem('key', $('key').value);
      $('key').value = '';
      resolve();
    }, {once: true});
    dialog.showModal();
  });
}

async function problemOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

async function listModels() {
  const response = await reach('v1/models');
  if (!response.ok) throw new Error(await problemOf(response));
  const {data} = await response.json();
  $('model').replaceChildren(...data.map((model) => make('option', {value: model.id, textContent: model.id})));
}

// ---- Pictures and clips

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({url: reader.result, type: file.type, name: file.name});
    reader.onerror = () => reject(new Error(`${file.name} can't be read`));
    reader.readAsDataURL(file);
  });
}

async function addFiles(files) {
  tell('');
  for (const file of files) {
    if (!/^(image|video)\//.test(file.type)) {
      tell(`${file.name} is no picture or clip`);
      continue;
    }
    waiting.push(await readFile(file));
  }
  showWaiting();
}

function thumbnail(medium) {
  return medium.type.startsWith('video/') ? make('video', {src: medium.url, muted: true, title: medium.name})
                                          : make('img', {src: medium.url, alt: medium.name, title: medium.name});
}

function showWaiting() {
  $('media').replaceChildren(...waiting.map((medium, i) => {
    const remove = make('button', {type: 'button', textContent: '×', title: `Remove ${medium.name}`});
    remove.addEventListener('click', () => {
      waiting.splice(i, 1);
      showWaiting();
    });
    return make('li', {}, thumbnail(medium), remove);
  }));
}

// ---- Requests

function contentOf(turn) {
  if (!turn.media.length) return turn.text;
  const parts = turn.media.map((medium) => medium.type.startsWith('video/')
    ? {type: 'video_url', video_url: {url: medium.url}}
    : {type: 'image_url', image_url: {url: medium.url, detail: $('detail').value}});
  return [...parts, {type: 'text', text: turn.text}];
}

function bodyOf(turns) {
  const body = {model: $('model').value, messages: turns.map((turn) => ({role: turn.role, content: contentOf(turn)}))};
  if ($('system').value) body.messages.unshift({role: 'system', content: $('system').value});
  if ($('temperature').value) body.temperature = Number($('temperature').value);
  if ($('max_tokens').value) body.max_tokens = Number($('max_tokens').value);
  const choices = $('choices').value.split('\n').map((line) => line.trim()).filter(Boolean);
  if (choices.length) {
    body.structured_outputs = {choice: choices};
    return body;
  }
  if ($('schema').value.trim()) {
    const schema = JSON.parse($('schema').value);
    body.response_format = {type: 'json_schema', json_schema: {name: 'answer', schema}};
  }
  if ($('certainty').checked) Object.assign(body, {logprobs: true, top_logprobs: 5});
  return body;
}

// The events of a response, parsed, as they come.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) throw new Error('the answer broke off');
    text += value;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events) {
      if (!event.startsWith('data: ')) continue;  // a comment in silence
      if (event === 'data: [DONE]') return;
      const data = JSON.parse(event.slice(6));
      if (data.error) throw new Error(data.error.message);
      yield data;
    }
  }
}

// ---- The conversation on the page

function showTurn(turn) {
  const text = make('div', {className: 'text', textContent: turn.text});
  const facts = make('div', {className: 'facts'});
  const item = make('li', {className: turn.role}, text, facts);
  if (turn.media.length) {
    item.prepend(make('ul', {className: 'shown'}, ...turn.media.map((medium) => make('li', {}, thumbnail(medium)))));
  }
  $('turns').append(item);
  item.scrollIntoView({block: 'end'});
  return {item, text, facts};
}

// Words on a ground that is the darker the less sure the model was; what else it might have said is in the title.
function showPiece(shown, choice) {
  const tokens = choice.logprobs?.content ?? [];
  if (!tokens.length || tokens.some((token) => token.token.includes('\ufffd'))) {
    shown.text.append(choice.delta.content);
    return;
  }
  for (const token of tokens) {
    const others = token.top_logprobs.map((one) => `${JSON.stringify(one.token)} ${percent(one.logprob)}`);
    const word = make('span', {textContent: token.token, title: others.join('\n')});
    word.style.backgroundColor = `rgb(220 120 0 / ${(0.6 * (1 - Math.exp(token.logprob))).toFixed(2)})`;
    shown.text.append(word);
  }
}

function percent(logprob) {
  return `${(100 * Math.exp(logprob)).toFixed(1)} %`;
}

function showProbabilities(shown, probabilities) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  shown.text.after(...sorted.map(([text, value]) => make(
    'div', {className: 'bar'}, make('span', {textContent: text}), make('meter', {value}),
    make('span', {textContent: `${(100 * value).toFixed(1)} %`}))));
}

function showFacts(shown, body, facts) {
  const parts = [];
  if (facts.usage) parts.push(`${facts.usage.prompt_tokens} + ${facts.usage.completion_tokens} tokens`);
  if (facts.first) parts.push(`first after ${(facts.first / 1000).toFixed(2)} s`);
  const after = (facts.end - facts.first) / 1000;
  if (facts.usage?.completion_tokens > 1 && after > 0) {
    parts.push(`then ${((facts.usage.completion_tokens - 1) / after).toFixed(1)} tokens/s`);
  }
  if (facts.finish === 'length') parts.push('cut at the limit');
  if (facts.stopped) parts.push('stopped');
  shown.facts.append(...parts.map((text) => make('span', {textContent: text})),
                     copyButton('Copy', () => shown.text.textContent),
                     copyButton('Copy as curl', () => asCurl(body)), copyButton('Copy as Python', () => asPython(body)));
}

function copyButton(name, text) {
  const button = make('button', {type: 'button', textContent: name});
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = name; }, 1500);
  });
  return button;
}

const base = () => new URL('v1', location.href).href;

function asCurl(body) {
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${base()}/chat/completions -H 'Content-Type: application/json' -d '${json}'`;
}

function asPython(body) {
  return `import json, openai\n\nclient = openai.OpenAI(base_url=${JSON.stringify(base())}, api_key="none")\n` +
    `body = json.loads(${JSON.stringify(JSON.stringify(body))})\n` +
    'reply = client.post("/chat/completions", body=body, cast_to=openai.types.chat.ChatCompletion)\n' +
    'print(reply.choices[0].message.content)\n';
}

async function answer() {
  const body = bodyOf(conversation);
  const shown = showTurn({role: 'assistant', text: '', media: []});
  const facts = {start: performance.now(), first: 0};
  running = new AbortController();
  setBusy(true);
  try {
    const response = await reach('v1/chat/completions', {
      method: 'POST', headers: {'Content-Type': 'application/json'}, signal: running.signal,
      body: JSON.stringify({...body, stream: true, stream_options: {include_usage: true}}),
    });
    if (!response.ok) throw new Error(await problemOf(response));
    for await (const event of eventsOf(response)) {
      facts.usage = event.usage ?? facts.usage;
      if (event.vlm?.probabilities) showProbabilities(shown, event.vlm.probabilities);
      const choice = event.choices[0];
      if (!choice) continue;
      facts.finish = choice.finish_reason ?? facts.finish;
      if (!choice.delta.content) continue;
      facts.first ||= performance.now() - facts.start;
      showPiece(shown, choice);
    }
  } catch (error) {
    facts.stopped = error.name === 'AbortError';
    if (!facts.stopped) tell(error.message);
  }
  facts.end = performance.now() - facts.start;
  running = null;
  setBusy(false);
  const text = shown.text.textContent;
  if (!text && !facts.usage) {
    shown.item.remove();
    return false;
  }
  conversation.push({role: 'assistant', text, media: []});
  showFacts(shown, body, facts);
  return true;
}

function setBusy(isBusy) {
  $('send').disabled = isBusy;
  $('stop').hidden = !isBusy;
}

async function send() {
  if (running) return;
  tell('');
  const turn = {role: 'user', text: $('question').value, media: waiting};
  if (!turn.text.trim() && !turn.media.length) return;
  try {
    bodyOf([turn]);
  } catch (error) {
    tell(`The schema is no JSON: ${error.message}`);
    return;
  }
  conversation.push(turn);
  const shown = showTurn(turn);
  $('question').value = '';
  waiting = [];
  showWaiting();
  if (await answer()) return;
  // Nothing came: the question is there again, to be changed and sent.
  conversation.pop();
  shown.item.remove();
  $('question').value = turn.text;
  waiting = turn.media;
  showWaiting();
}

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
$('files').addEventListener('change', async (event) => {
  await addFiles(event.target.files);
  event.target.value = '';
});
$('again').addEventListener('click', () => {
  running?.abort();
  conversation.length = 0;
  $('turns').replaceChildren();
  tell('');
});
document.addEventListener('paste', (event) => {
  if (event.clipboardData.files.length) addFiles(event.clipboardData.files);
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  $('ask').classList.add('over');
});
document.addEventListener('dragleave', () => $('ask').classList.remove('over'));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  $('ask').classList.remove('over');
  addFiles(event.dataTransfer.files);
});
listModels().catch((error) => tell(error.message));
