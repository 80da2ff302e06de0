// After the job's last step: the workers are let go, the session's log is shown, the summary is written.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { publicEnv, run } from './process.js'
import { readJson, removeDir, statusOf } from './session.js'
import { splitLog } from './log.js'
import { markdown } from './summary.js'

/** @param {import('./runner.js').Runner} runner */
export async function finish(runner) {
  const [distmesh, runtimeDir, session] = ['distmesh', 'runtimeDir', 'session'].map((name) => runner.state(name))
  // A worker's step ends itself, and a step that failed early has begun nothing.
  if (!runtimeDir) return
  if (session) await goDown(runner, { distmesh, runtimeDir, session })
  const report = readJson(join(runner.state('report'), 'report.json'))
  runner.summarize(markdown(report, { alone: session === '' }))
  removeDir(runtimeDir)
}

async function goDown(runner, { distmesh, runtimeDir, session }) {
  const env = { ...publicEnv(runner.env), DISTMESH_RUNTIME_DIR: runtimeDir, DISTMESH_SESSION: session }
  const running = await statusOf(distmesh, env)
  if (running) {
    const code = await run(distmesh, ['down'], { env, timeoutMs: GOODBYE_MS })
    if (code !== 0) runner.warn(`\`distmesh down\` ended with ${code}: workers may run on for a while. Try: look at the session's log below`)
  }
  const log = join(runtimeDir, 'sessions', session, 'up.log')
  if (existsSync(log)) await showLog(runner, readFileSync(log, 'utf8'))
}

/** What the background said since `up` returned. Its warnings are annotations, as if it had run in a step. */
async function showLog(runner, text) {
  const { lines, warnings } = splitLog(text)
  await runner.group('distmesh: what the session said in the background', () => runner.quote(lines.join('\n')))
  for (const warning of warnings) runner.warn(warning)
}

/** Goodbyes are one packet a worker. */
const GOODBYE_MS = 30_000
