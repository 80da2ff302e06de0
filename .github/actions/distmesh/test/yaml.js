// Reads as much YAML as workflows and action files are written in: maps, lists, plain and quoted scalars, block scalars.

/** @param {string} text */
export function parseYaml(text) {
  const lines = text.split('\n').map((raw) => ({ raw, indent: raw.search(/\S/) }))
  const reader = { lines, at: 0 }
  return block(reader, 0)
}

function block(reader, indent) {
  const line = peek(reader)
  if (!line || line.indent < indent) return null
  return isItem(line) ? list(reader, line.indent) : map(reader, line.indent)
}

function list(reader, indent) {
  const items = []
  for (let line = peek(reader); line && line.indent === indent && isItem(line); line = peek(reader)) {
    const rest = line.raw.slice(indent + 1)
    if (KEY.test(rest.trimStart())) {
      // The item's first key stands behind the dash: it is read as if it stood on a line of its own.
      const inner = indent + 1 + rest.search(/\S/)
      reader.lines[reader.at] = { raw: ' '.repeat(inner) + rest.trimStart(), indent: inner }
      items.push(map(reader, inner))
    } else {
      reader.at += 1
      items.push(scalar(rest.trim()))
    }
  }
  return items
}

function map(reader, indent) {
  const found = {}
  for (let line = peek(reader); line && line.indent === indent && !isItem(line); line = peek(reader)) {
    const match = KEY.exec(line.raw.trim())
    if (!match) throw new Error(`not a line of a map: ${line.raw}`)
    reader.at += 1
    found[scalar(match[1])] = value(reader, (match[2] ?? '').trim(), indent)
  }
  return found
}

function value(reader, text, indent) {
  const style = /^([|>])([-+]?)$/.exec(text)
  if (style) return blockScalar(reader, indent, style)
  if (text !== '' && !text.startsWith('#')) return scalar(text)
  const next = peek(reader)
  // A list may stand under its key without indentation.
  if (next && next.indent === indent && isItem(next)) return list(reader, indent)
  return next && next.indent > indent ? block(reader, next.indent) : null
}

function blockScalar(reader, indent, [, fold, chomp]) {
  const taken = []
  while (reader.at < reader.lines.length) {
    const line = reader.lines[reader.at]
    if (line.indent !== -1 && line.indent <= indent) break
    taken.push(line.raw)
    reader.at += 1
  }
  while (taken.at(-1)?.trim() === '') taken.pop()
  const margin = taken[0]?.search(/\S/) ?? 0
  const text = taken.map((line) => line.slice(margin)).join(fold === '>' ? ' ' : '\n')
  return chomp === '-' ? text : `${text}\n`
}

function scalar(text) {
  if (text.startsWith("'")) return text.slice(1, text.lastIndexOf("'")).replaceAll("''", "'")
  if (text.startsWith('"')) return JSON.parse(text.slice(0, text.lastIndexOf('"') + 1))
  return text.replace(/\s+#.*$/, '')
}

function peek(reader) {
  while (reader.at < reader.lines.length) {
    const line = reader.lines[reader.at]
    if (line.indent !== -1 && line.raw[line.indent] !== '#') return line
    reader.at += 1
  }
  return undefined
}

function isItem(line) {
  return /^-(\s|$)/.test(line.raw.slice(line.indent))
}

const KEY = /^((?:"[^"]*"|'[^']*'|[^\s#'"][^:#]*?))\s*:(?:\s+(.*)|)$/
