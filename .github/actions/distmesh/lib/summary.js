// The page of the run: what became of the build, as Markdown.

/**
 * @param {object | undefined} report the contents of report.json; `undefined` if no `distmesh build` ended in this job
 * @param {{ alone: boolean }} session whether this job had none
 */
export function markdown(report, { alone }) {
  const title = '### distmesh\n'
  const without = alone ? 'This job built on its own machine alone: it had no session.\n' : ''
  if (!report) return `${title}\n${without}No \`distmesh build\` has ended in this job.`
  return [title, without, headline(report), workers(report), reasons(report), incidents(report)].filter((part) => part !== '').join('\n')
}

function headline({ jobs, workers, exit_code: code, wall_s: wall, expected_workers: expected }) {
  const used = workers.filter((worker) => worker.jobs > 0).length
  const came = workers.filter((worker) => worker.up_after_s !== null).length
  const missing = expected && expected > came ? `; ${came} of ${expected} expected workers came` : ''
  const again = jobs.reattempted > 0 ? ` ${jobs.reattempted} of them took more than one worker.` : ''
  return `**${jobs.remote} of ${jobs.seen} compiles** were made by ${used} worker${used === 1 ? '' : 's'} in ${seconds(wall)}${missing}.${again} The command ended with ${code}.\n`
}

function workers({ workers }) {
  if (workers.length === 0) return ''
  const rows = workers.slice(0, MAX_ROWS).map(row)
  const more = workers.length > MAX_ROWS ? `\n${workers.length - MAX_ROWS} more workers are in report.json.\n` : ''
  return ['| worker | slots | jobs | link | path | up after | NAT |', '|---|--:|--:|---|---|--:|---|', ...rows].join('\n') + `\n${more}`
}

function row(worker) {
  const path = worker.relay ? `${worker.path} by ${worker.relay}` : worker.path
  const upAfter = worker.up_after_s === null ? null : seconds(worker.up_after_s)
  const cells = [worker.name, worker.slots, worker.jobs, worker.state, path, upAfter, worker.nat]
  return `| ${cells.map(cell).join(' | ')} |`
}

function reasons({ local_reasons: reasons }) {
  const list = Object.entries(reasons ?? {}).sort(([, a], [, b]) => b - a)
  if (list.length === 0) return ''
  const items = list.slice(0, MAX_ITEMS).map(([reason, count]) => `- ${count}: ${cell(reason)}`)
  return `Made on the primary:\n\n${items.join('\n')}\n`
}

function incidents({ incidents, refused }) {
  const list = [
    ...(refused ?? []).map((refusal) => `${refusal.worker} was not used for ${refusal.compiler}: ${refusal.reason}`),
    ...(incidents ?? []).map((incident) => incident.text),
  ]
  if (list.length === 0) return ''
  const items = list.slice(0, MAX_ITEMS).map((text) => `- ${cell(text)}`)
  const more = list.length > MAX_ITEMS ? [`- and ${list.length - MAX_ITEMS} more, in report.json`] : []
  return `<details><summary>What happened (${list.length})</summary>\n\n${[...items, ...more].join('\n')}\n\n</details>\n`
}

/** Text of others must neither end its cell nor become markup. */
function cell(value) {
  const text = value === null || value === undefined ? '–' : String(value)
  return text.replace(/[\\`*_{}[\]<>#|]/g, '\\$&').replace(/\s+/g, ' ')
}

function seconds(value) {
  return `${value.toFixed(1)} s`
}

/** The largest matrix has 256 jobs; a page may have 1 MiB. */
const MAX_ROWS = 256
const MAX_ITEMS = 20
