// What all parts of the page use: elements, the server's API, downloads.

export const $ = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export function button(name, onClick, properties = {}) {
  const element = make('button', {type: 'button', textContent: name, ...properties});
  element.addEventListener('click', onClick);
  return element;
}

export function tell(problem) {
  $('problem').textContent = problem;
  $('problem').hidden = !problem;
}

export function copyButton(name, text) {
  const element = button(name, async () => {
    await navigator.clipboard.writeText(text());
    element.textContent = 'Copied';
    setTimeout(() => { element.textContent = name; }, 1500);
  });
  return element;
}

export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], {type}));
  make('a', {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

export const percent = (value) => `${(100 * value).toFixed(1)} %`;

// ---- The server

// Its answer to a request; asks for a key when one is needed.
export async function reach(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem('key');
    const headers = {...options.headers, ...(key ? {Authorization: `Bearer ${key}`} : {})};
    const response = await fetch(path, {...options, headers});
    if (response.status !== 401) return response;
    await askForKey();
  }
}

let asking = null;  // one dialog for all requests that wait for the key

function askForKey() {
  asking ??= new Promise((resolve, reject) => {
    const dialog = $('key_dialog');
    dialog.addEventListener('close', () => {
      asking = null;
      if (!$('key').value) return reject(new Error('no key was given'));
      sessionStorage.setItem('key', $('key').value);
      $('key').value = '';
      resolve();
    }, {once: true});
    dialog.showModal();
  });
  return asking;
}

export async function problemOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

export async function getJson(path) {
  const response = await reach(path);
  if (!response.ok) throw new Error(await problemOf(response));
  return response.json();
}

export function postChat(body, signal) {
  return reach('v1/chat/completions',
               {method: 'POST', headers: {'Content-Type': 'application/json'}, signal, body: JSON.stringify(body)});
}

// The events of a streamed answer, parsed, as they come.
export async function* eventsOf(response) {
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

// ---- The same request elsewhere

const base = () => new URL('v1', location.href).href;
const hasKey = () => Boolean(sessionStorage.getItem('key'));

// The body comes by a here-document: pictures are longer than an argument may be. JSON holds no line of its end mark.
export function asCurl(body) {
  const key = hasKey() ? ` -H "Authorization: Bearer $VLM_API_KEY"` : '';
  return `curl ${base()}/chat/completions -H 'Content-Type: application/json'${key} -d @- <<'END'\n` +
    `${JSON.stringify(body)}\nEND\n`;
}

export function asPython(body) {
  const key = hasKey() ? 'os.environ["VLM_API_KEY"]' : '"none"';
  return `import json, os, openai\n\nclient = openai.OpenAI(base_url=${JSON.stringify(base())}, api_key=${key})\n` +
    `body = json.loads(${JSON.stringify(JSON.stringify(body))})\n` +
    'reply = client.post("/chat/completions", body=body, cast_to=openai.types.chat.ChatCompletion)\n' +
    'print(reply.choices[0].message.content)\n';
}
