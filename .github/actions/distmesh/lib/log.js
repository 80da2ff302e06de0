// The background session writes for a log that GitHub reads; here its lines are told from its annotations.

/**
 * @param {string} text
 * @returns {{ lines: string[], warnings: string[] }} at most `MAX_LINES` lines, and the text of each annotation
 */
export function splitLog(text) {
  const all = text.split('\n').filter((line) => line !== '')
  const lines = all.filter((line) => !ANNOTATION.test(line))
  const warnings = all.flatMap((line) => ANNOTATION.exec(line)?.[1] ?? []).map(unescape)
  return { lines: shortened(lines), warnings: warnings.slice(0, MAX_WARNINGS) }
}

function shortened(lines) {
  if (lines.length <= MAX_LINES) return lines
  const left = lines.length - MAX_LINES
  return [`(${left} earlier lines are left out)`, ...lines.slice(left)]
}

function unescape(text) {
  return text.replaceAll('%0A', '\n').replaceAll('%0D', '\r').replaceAll('%25', '%')
}

/** distmesh writes these beside the same text as an ordinary line. */
const ANNOTATION = /^::(?:warning|error) title=distmesh::(.*)$/

/** A log page shows more only slowly. */
const MAX_LINES = 2_000

/** GitHub keeps ten of each kind a step. */
const MAX_WARNINGS = 10
