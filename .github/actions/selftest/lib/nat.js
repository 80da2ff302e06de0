// How this runner is seen from outside, by distmesh's own eyes.

import { capture, publicEnv, which } from '../../distmesh/lib/process.js'
import { answer, json } from './answer.js'

/** @returns {AsyncGenerator<import('./answer.js').Answer>} */
export async function* natChecks(env) {
  const distmesh = which('distmesh', env)
  if (!distmesh) {
    yield answer('distmesh is on PATH', false, 'no', { needed: false })
    return
  }
  const { text } = await capture(distmesh, ['doctor', '--json'], { env: publicEnv(env), quiet: true, timeoutMs: PATIENCE_MS })
  const checks = json({ body: Buffer.from(text) }).checks ?? []
  const find = (name) => checks.find((check) => check.name === name)
  yield answer('a STUN server is reached', find('outside address')?.state === 'ok', find('outside address')?.state ?? 'unknown', { needed: false })
  // The class is what the mesh plans by; the address is nobody's business.
  yield answer("the NAT's mapping does not depend on the destination", find('NAT')?.state === 'ok', find('NAT')?.what ?? 'unknown', { needed: false })
}

const PATIENCE_MS = 60_000
