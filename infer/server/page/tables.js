// CSV and JSONL: rows in, rows out.

// RFC 4180 text → lists of fields.
function parseCsv(text) {
  const rows = [];
  let row = [], field = '', isQuoted = false;
  const endField = () => { row.push(field); field = ''; };
  const endRow = () => {
    endField();
    if (row.length > 1 || row[0]) rows.push(row);
    row = [];
  };
  for (let i = 0; i < text.length; ++i) {
    const c = text[i];
    if (isQuoted && c === '"' && text[i + 1] === '"') field += text[++i];
    else if (isQuoted && c === '"') isQuoted = false;
    else if (isQuoted) field += c;
    else if (c === '"' && !field) isQuoted = true;
    else if (c === ',') endField();
    else if (c === '\n') endRow();
    else if (c !== '\r') field += c;
  }
  if (field || row.length) endRow();
  return rows;
}

// The rows of a CSV or JSONL file as objects; throws for one that can't be read.
export async function readRows(file) {
  const text = (await file.text()).replace(/^\ufeff/, '');
  if (/\.csv$/i.test(file.name)) {
    const [header, ...lines] = parseCsv(text);
    return lines.map((line) => Object.fromEntries(header.map((name, i) => [name, line[i] ?? ''])));
  }
  return text.split('\n').filter((line) => line.trim()).map((line, i) => {
    try {
      return JSON.parse(line);
    } catch (error) {
      throw new Error(`${file.name}:${i + 1} is no JSON: ${error.message}`);
    }
  });
}

// A spreadsheet would compute a text that begins so. Numbers stay numbers.
const FORMULA = /^[=+\-@\t\r]/;

function csvField(value) {
  if (value === undefined || value === null) return '';
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const plain = typeof value === 'string' && FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

export function toCsv(header, rows) {
  const lines = [header, ...rows.map((row) => header.map((name) => row[name]))];
  return lines.map((line) => line.map(csvField).join(',') + '\r\n').join('');
}

export const toJsonl = (rows) => rows.map((row) => JSON.stringify(row) + '\n').join('');
