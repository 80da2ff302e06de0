// `mode: primary`: the mesh comes up in the background, and the job goes on.

import { mkdirSync } from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'

import { capture, publicEnv, run } from './process.js'
import { SECRET_CURE, nodeEnv, runtimeDirOf, sessionVariables, statusOf, whyAlone } from './session.js'

/**
 * @param {import('./runner.js').Runner} runner
 * @param {import('./inputs.js').Inputs} inputs
 * @param {import('./prepare.js').Job} job
 */
export async function bringUp(runner, inputs, { distmesh }) {
  const report = join(runner.env.RUNNER_TEMP, 'distmesh-report')
  mkdirSync(report, { recursive: true })
  const runtimeDir = runtimeDirOf(runner.env, inputs.session)
  const variables = sessionVariables(inputs, runtimeDir)
  for (const [name, value] of Object.entries({ distmesh, report, runtimeDir })) runner.saveState(name, value)
  const up = await start(runner, inputs, distmesh, variables)
  const forBuilds = up ? { ...variables, ...buildVariables(inputs) } : { ...variables, ...aloneVariables(runtimeDir) }
  for (const [name, value] of Object.entries({ ...forBuilds, DISTMESH_REPORT: report })) runner.exportVariable(name, value)
  await tell(runner, distmesh, { ...publicEnv(runner.env), ...variables }, up)
  runner.output('report', report)
}

/** Starts the session, if there can be one. That there is none costs speed, not the build: it is said, and the job goes on. */
async function start(runner, inputs, distmesh, variables) {
  const alone = whyAlone(inputs, runner.event(), runner.env)
  if (alone) {
    const text = `building on this machine alone: ${alone.text}`
    if (alone.usual) runner.notice(text)
    else runner.warn(`${text}. Try: ${SECRET_CURE}`)
    return false
  }
  const waiting = inputs.waitHere ? inputs.minWorkers : 0
  const args = ['up', '--min-workers', `${waiting}`, '--wait', inputs.waitTimeout]
  const env = nodeEnv(runner.env, inputs, variables)
  const code = await runner.group('distmesh: bring the mesh up', () =>
    run(distmesh, args, { env, timeoutMs: START_MS + milliseconds(inputs.waitTimeout) }),
  )
  if (code === 0) return true
  runner.warn(`building on this machine alone: \`distmesh up\` ended with ${code}. Try: look at the lines above`)
  return false
}

/** What `distmesh build` of a later step is told. Options of its command line still come first. */
function buildVariables(inputs) {
  const variables = { DISTMESH_WAIT: inputs.waitTimeout, DISTMESH_MIN_WORKERS: `${inputs.minWorkers}` }
  if (inputs.expectedWorkers !== undefined) variables.DISTMESH_WORKERS = `${inputs.expectedWorkers}`
  return variables
}

/**
 * Why this job is alone has been said once, and nobody comes: a build has nothing to look for, to wait for or to warn of. It finds a
 * meeting place of its own, to which nobody else has the way.
 */
function aloneVariables(runtimeDir) {
  return { DISTMESH_RENDEZVOUS: `dir:${join(runtimeDir, 'alone')}`, DISTMESH_STUN: 'none', DISTMESH_MIN_WORKERS: '0' }
}

/** The outputs, as things stand when the step ends. */
async function tell(runner, distmesh, env, up) {
  const status = up ? await statusOf(distmesh, env) : undefined
  const ask = async (...args) => (await capture(distmesh, ['hosts', ...args], { env, quiet: true })).text.trim()
  runner.output('session', status?.session ?? '')
  runner.output('workers-online', `${status?.ready ?? 0}`)
  runner.output('distcc-hosts', status ? await ask() : '')
  runner.output('distcc-j', status ? await ask('--jobs') : `${cores()}`)
  // post.js has to find the log even when the session has died.
  runner.saveState('session', status?.session ?? '')
}

/** What a build without workers is given. */
function cores() {
  return os.availableParallelism?.() ?? os.cpus().length
}

/** Durations as the inputs let them through: parts of a number and a unit. */
function milliseconds(duration) {
  const parts = [...duration.matchAll(/(\d+)(ms|s|m|h)/g)]
  return parts.reduce((sum, [, number, unit]) => sum + Number(number) * UNIT_MS[unit], 0)
}

const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

/** Keys are derived and a socket is bound within a second or two; a rendezvous that does not answer must not hold the job. */
const START_MS = 90_000
