// The fake GitHub of the Rust tests, as a process: its own results service, REST interface and blob store on this machine.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'

import { DISTMESH } from './fake-runner.js'

const PROGRAM = process.env.DISTMESH_FAKE_GITHUB ?? join(dirname(DISTMESH), 'examples', 'fake-github')

/** Why tests that want it are left out; `false` if they are not. */
export const whyNoFake = existsSync(PROGRAM) ? false : `there is no ${PROGRAM}: cargo build --example fake-github`

/** Starts it; it ends when its standard input does, with the test. */
export async function startFake(t) {
  const child = spawn(PROGRAM, [], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.after(() => child.stdin.end())
  const lines = createInterface({ input: child.stdout })
  const line = await new Promise((resolve) => lines.once('line', resolve))
  const fake = JSON.parse(line)
  const control = async (path, options) => (await fetch(`${fake.api}/_fake/${path}`, options)).json()
  return {
    ...fake,
    counts: () => control('counts'),
    fault: (name, times) => control(`fault?name=${name}&times=${times}`, { method: 'POST' }),
    jobsAre: (jobs) => control('jobs', { method: 'POST', body: JSON.stringify(jobs) }),
  }
}
