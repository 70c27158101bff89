// Conversations that this browser keeps, pictures among them, until they are deleted.
import {$, make, button, download, tell} from './basics.js';
import {asDataUri} from './media.js';

let database = null;  // promise of it

function open() {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open('vlm', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('conversations', {keyPath: 'id'});
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return database;
}

// The result of one action on the store.
async function act(mode, action) {
  const store = (await open()).transaction('conversations', mode).objectStore('conversations');
  return new Promise((resolve, reject) => {
    const request = action(store);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

const isPrivate = () => localStorage.getItem('private') === 'yes';

// A conversation is {id, turns}; its turns hold texts and blobs.
export async function keep(conversation) {
  if (isPrivate()) return;
  try {
    await act('readwrite', (store) => store.put({...conversation, time: Date.now()}));
  } catch (error) {
    tell(`The conversation isn't kept: ${error.message}`);
  }
}

function titleOf(conversation) {
  const first = conversation.turns.find((turn) => turn.role === 'user');
  return first?.text.slice(0, 80) || first?.media[0]?.name || 'Without words';
}

async function exportAll() {
  const all = await act('readonly', (store) => store.getAll());
  for (const conversation of all) {
    for (const turn of conversation.turns) {
      turn.media = await Promise.all((turn.media ?? []).map(
        async (medium) => ({name: medium.name, type: medium.type, url: await asDataUri(medium)})));
    }
  }
  download('vlm-conversations.json', 'application/json', JSON.stringify(all, null, 1));
}

// `show` is called with the conversation that is chosen.
export async function showHistory(show) {
  const all = await act('readonly', (store) => store.getAll());
  all.sort((a, b) => b.time - a.time);
  $('history').replaceChildren(...all.map((conversation) => make(
    'li', {}, button(titleOf(conversation), () => show(conversation), {className: 'link'}),
    make('time', {textContent: new Date(conversation.time).toLocaleString()}),
    button('Delete', async () => {
      await act('readwrite', (store) => store.delete(conversation.id));
      await showHistory(show);
    }))));
}

$('private').checked = isPrivate();
$('private').addEventListener('change', () => localStorage.setItem('private', $('private').checked ? 'yes' : 'no'));
$('history_export').addEventListener('click', exportAll);
$('history_clear').addEventListener('click', async () => {
  await act('readwrite', (store) => store.clear());
  $('history').replaceChildren();
});
