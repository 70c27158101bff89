// The settings → fields of a request, checked.
import {$, make, getJson} from './basics.js';

const NUMBERS = ['temperature', 'top_p', 'seed', 'max_tokens'];

export function choicesOf() {
  return $('choices').value.split('\n').map((line) => line.trim()).filter(Boolean);
}

export function schemaOf() {
  const text = $('schema').value.trim();
  if (!text) return null;
  let schema;
  try {
    schema = JSON.parse(text);
  } catch (error) {
    throw new Error(`The schema is no JSON: ${error.message}`);
  }
  if (typeof schema !== 'object' || !schema || Array.isArray(schema)) throw new Error('The schema is no JSON object');
  return schema;
}

// What is wrong with the settings; empty: nothing.
function findProblem() {
  const choices = choicesOf();
  if (choices.length === 1) return 'One answer is no choice: give two or more';
  if (new Set(choices).size < choices.length) return 'An answer to choose from is there twice';
  try {
    if (schemaOf() && choices.length) return 'Give answers to choose from or a schema, not both';
  } catch (error) {
    return error.message;
  }
  return '';
}

// The fields of a request but its messages; throws what is wrong with them.
export function settingsBody() {
  const problem = findProblem();
  if (problem) throw new Error(problem);
  const body = {};
  for (const name of NUMBERS) {
    if ($(name).value) body[name] = Number($(name).value);
  }
  const choices = choicesOf();
  const schema = schemaOf();
  if (choices.length) body.structured_outputs = {choice: choices};
  if (schema) body.response_format = {type: 'json_schema', json_schema: {name: 'answer', schema}};
  return body;
}

export async function listModels() {
  const {data} = await getJson('v1/models');
  const options = () => data.map((model) => make('option', {value: model.id, textContent: model.id}));
  $('model').replaceChildren(...options());
  $('compare').replaceChildren(make('option', {value: '', textContent: 'nothing'}), ...options());
}

for (const name of ['choices', 'schema']) {
  $(name).addEventListener('input', () => { $('settings_problem').textContent = findProblem(); });
}
