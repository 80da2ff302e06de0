// `mode: worker`: compiles for the primary until the session ends.

import { Failure } from './failure.js'
import { run } from './process.js'
import { SECRET_CURE, nodeEnv, removeDir, runtimeDirOf, sessionVariables, whyAlone } from './session.js'

/**
 * @param {import('./runner.js').Runner} runner
 * @param {import('./inputs.js').Inputs} inputs
 * @param {import('./prepare.js').Job} job
 */
export async function serve(runner, inputs, { distmesh }) {
  const alone = whyAlone(inputs, runner.event(), runner.env)
  if (alone) {
    const text = `this worker has nothing to do: ${alone.text}`
    if (alone.usual) runner.notice(text)
    else runner.warn(`${text}. Try: ${SECRET_CURE}`)
    return
  }
  const runtimeDir = runtimeDirOf(runner.env, inputs.session)
  const env = nodeEnv(runner.env, inputs, sessionVariables(inputs, runtimeDir))
  const code = await run(distmesh, ['worker', ...options(inputs)], { env, forwardSignals: true })
  removeDir(runtimeDir)
  if (code !== 0) {
    throw new Failure(`the worker ended with ${code}`, 'look at the lines above; the build goes on without it')
  }
}

/** Only what the workflow says: what it does not say, `distmesh worker` knows best. */
function options(inputs) {
  const given = {
    '--name': inputs.name,
    '--slots': inputs.slots,
    '--until-artifact': inputs.untilArtifact,
    '--wait-primary': inputs.waitPrimary,
    '--max-lifetime': inputs.maxLifetime,
  }
  const set = Object.entries(given).filter(([, value]) => value !== undefined && value !== '')
  return set.flatMap(([option, value]) => [option, `${value}`])
}
