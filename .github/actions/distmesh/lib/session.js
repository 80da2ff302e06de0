// The session of this job: how it is named, where it lives, and whether there can be one.

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { capture } from './process.js'

/**
 * Why this job has to build or work alone; `undefined` if it need not.
 *
 * @returns {{ text: string, usual: boolean } | undefined} `usual`: nothing that anybody should mend
 */
export function whyAlone({ secret, trustRun }, event, env) {
  if (secret || trustRun) return undefined
  const head = event.pull_request?.head?.repo?.full_name
  if (event.pull_request && head !== env.GITHUB_REPOSITORY) {
    return { usual: true, text: 'this pull request comes from a fork, which gets no secrets' }
  }
  if (env.GITHUB_ACTOR === 'dependabot[bot]') {
    return { usual: true, text: "Dependabot's runs get none of the repository's secrets" }
  }
  return { usual: false, text: 'there is no secret' }
}

/** What to do where nothing forbids a secret. */
export const SECRET_CURE =
  'make one with `distmesh keygen`, keep it as the secret ENCRYPTION_KEY of the repository, and pass it on: ' +
  '`secret: ${{ secrets.ENCRYPTION_KEY }}`; or say `trust-run: true`'

/**
 * The variables by which every distmesh of this job finds the same session. Nothing in them is secret: later steps get them too.
 *
 * @param {import('./inputs.js').Inputs} inputs
 */
export function sessionVariables(inputs, runtimeDir) {
  const all = {
    DISTMESH_RUNTIME_DIR: runtimeDir,
    DISTMESH_SESSION: inputs.session,
    DISTMESH_RENDEZVOUS: inputs.rendezvous,
    DISTMESH_TRUST_RUN: inputs.trustRun ? 'true' : '',
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ''))
}

/**
 * The environment of a distmesh that takes part in the mesh itself. It alone has the run's token (which GitHub gives to actions and to
 * no other step) and the secret; of the inputs it needs none.
 *
 * @param {import('./inputs.js').Inputs} inputs
 */
export function nodeEnv(env, inputs, variables) {
  const inherited = Object.entries(env).filter(([name]) => !/^(INPUT|STATE)_/.test(name))
  const node = { ...Object.fromEntries(inherited), ...variables }
  // Both or neither: an empty one would be a secret of no bytes.
  if (inputs.secret) node.ENCRYPTION_KEY = inputs.secret
  else delete node.ENCRYPTION_KEY
  if (inputs.token) node.GITHUB_TOKEN = inputs.token
  if (env.RUNNER_DEBUG === '1') node.DISTMESH_VERBOSE ??= '2'
  return node
}

/**
 * A private directory for the session. The runner empties its temporary directory after the job, but sockets below it need a short
 * name; where it is too long, one below /tmp that post.js removes.
 */
export function runtimeDirOf(env, session) {
  const near = join(env.RUNNER_TEMP ?? '', 'distmesh')
  const name = session.length || DEFAULT_SESSION
  if (env.RUNNER_TEMP && near.length + '/sessions/'.length + name + SOCKET <= MAX_SOCKET) return near
  return mkdtempSync('/tmp/distmesh-')
}

/** A run's number and its attempt. */
const DEFAULT_SESSION = 24

/** The longest socket below a session, and what an address may have on macOS; Linux allows four more. */
const SOCKET = 32
const MAX_SOCKET = 103

/** The session as it is now; `undefined` if none runs. */
export async function statusOf(distmesh, env) {
  const { code, text } = await capture(distmesh, ['status', '--json'], { env, quiet: true, timeoutMs: ANSWER_MS })
  return code === 0 ? json(text) : undefined
}

/** A JSON file, if it is there and whole. */
export function readJson(path) {
  return existsSync(path) ? json(readFileSync(path, 'utf8')) : undefined
}

export function removeDir(path) {
  rmSync(path, { recursive: true, force: true })
}

function json(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A session answers from memory. */
const ANSWER_MS = 10_000
