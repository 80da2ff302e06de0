// The results service: what carries the descriptors. Only an action has the token for it.

import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { answer, ask, json } from './answer.js'
import { zipOf } from './zip.js'

/** @returns {AsyncGenerator<import('./answer.js').Answer>} */
export async function* resultsChecks(env) {
  const ids = backendIds(env.ACTIONS_RUNTIME_TOKEN ?? '')
  const there = Boolean(env.ACTIONS_RESULTS_URL && ids)
  yield answer('an action has the address of the results service, and a token that names run and job', there, there ? 'yes' : 'no')
  if (!there) return
  const call = caller(env, ids)
  const name = `distmesh-selftest-${env.GITHUB_RUN_ATTEMPT ?? 1}-${randomBytes(6).toString('hex')}`
  const content = zipOf('entry', randomBytes(200))

  const made = await call('CreateArtifact', { name, version: 4, mime_type: 'application/zip' })
  const url = json(made).signed_upload_url
  yield answer('an artifact is created and has an upload address', made.status === 200 && Boolean(url), timed(made))
  if (!url) return
  const put = await ask(url, { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob', 'content-type': 'application/zip' }, body: content })
  yield answer('one Put Blob without Authorization is enough', put.status === 201, `HTTP ${put.status}`)
  yield answer('the upload address lives for an hour', lifetime(url) >= 55, `${lifetime(url)} min`, { needed: false })
  const again = await call('CreateArtifact', { name, version: 4, mime_type: 'application/zip' })
  yield answer('a name is taken from Create onward', again.status === 409, `HTTP ${again.status}`, { needed: false })

  const hash = `sha256:${createHash('sha256').update(content).digest('hex')}`
  const finalized = await call('FinalizeArtifact', { name, size: `${content.length}`, hash })
  yield answer('Finalize answers with the number of the artifact', Boolean(json(finalized).artifact_id), timed(finalized))

  const { artifact, after, polls } = await seen(() => call('ListArtifacts', { name_filter: name }), name)
  yield answer('the list shows it within five seconds', after <= 5_000, `${after} ms, ${polls} requests`)
  yield* downloaded(call, artifact, content)
  yield* hurried(call)

  const gone = await call('DeleteArtifact', { name, ...uploader(artifact, ids) })
  const left = json(await call('ListArtifacts', { name_filter: name })).artifacts ?? []
  yield answer('a deleted artifact is not listed any more', gone.status === 200 && left.length === 0, `HTTP ${gone.status}, ${left.length} left`, {
    needed: false,
  })
}

async function* downloaded(call, artifact, content) {
  if (!artifact) return
  const signed = await call('GetSignedArtifactURL', { name: artifact.name, ...uploader(artifact) })
  const url = json(signed).signed_url
  yield answer('it has a download address, for the ids that the list gives', Boolean(url), timed(signed))
  if (!url) return
  const got = await ask(url)
  yield answer('the download is what was uploaded', got.status === 200 && got.body.equals(content), `HTTP ${got.status}, ${got.body.length} bytes`)
  yield answer('the download address lives for ten minutes', lifetime(url) >= 9, `${lifetime(url)} min`, { needed: false })
  const etag = got.headers.get('etag')
  const same = etag ? await ask(url, { headers: { 'if-none-match': etag } }) : { status: 0 }
  yield answer('a download can be conditional', same.status === 304, `HTTP ${same.status}`, { needed: false })
  const foreign = await ask(url, { headers: { authorization: 'Bearer nobody' } })
  yield answer('the blob store refuses Authorization, so it must not be sent', foreign.status >= 400, `HTTP ${foreign.status}`, { needed: false })
}

/** Twenty runners that look every two seconds are ten lists a second, for a short while. */
async function* hurried(call) {
  const began = Date.now()
  const statuses = []
  for (let round = 0; round < ROUNDS; round += 1) {
    const asked = await Promise.all(Array.from({ length: AT_ONCE }, () => call('ListArtifacts', {})))
    statuses.push(...asked.map(({ status }) => status))
  }
  const counts = [...new Set(statuses)].map((status) => `${statuses.filter((one) => one === status).length} × HTTP ${status}`)
  const found = `${counts.join(', ')} in ${((Date.now() - began) / 1000).toFixed(1)} s`
  yield answer('forty lists at once are not refused', statuses.every((status) => status === 200), found, { needed: false })
}

async function seen(list, name) {
  const began = Date.now()
  for (let polls = 1; ; polls += 1) {
    const artifact = (json(await list()).artifacts ?? []).find((one) => one.name === name)
    const after = Date.now() - began
    if (artifact || after > VISIBLE_MS) return { artifact, after, polls }
    await sleep(250)
  }
}

function caller(env, ids) {
  const base = new URL('/twirp/github.actions.results.api.v1.ArtifactService/', env.ACTIONS_RESULTS_URL)
  const headers = { authorization: `Bearer ${env.ACTIONS_RUNTIME_TOKEN}`, 'content-type': 'application/json', 'user-agent': 'distmesh-selftest' }
  return async (method, body) => {
    const began = Date.now()
    const response = await ask(new URL(method, base), { method: 'POST', headers, body: JSON.stringify({ ...ids, ...body }) })
    return { ...response, took: Date.now() - began }
  }
}

/** The ids of run and job, from the token's own claims. */
function backendIds(token) {
  const claims = json({ body: Buffer.from(token.split('.')[1] ?? '', 'base64url') })
  const scope = String(claims.scp ?? '').split(' ').find((one) => one.startsWith('Actions.Results:'))
  const [, run, job] = scope?.split(':') ?? []
  return run && job ? { workflow_run_backend_id: run, workflow_job_run_backend_id: job } : undefined
}

function uploader(artifact, otherwise = {}) {
  const { workflow_run_backend_id, workflow_job_run_backend_id } = { ...otherwise, ...artifact }
  return { workflow_run_backend_id, workflow_job_run_backend_id }
}

/** How long a signed address has still to live, in minutes. */
function lifetime(url) {
  return Math.round((Date.parse(new URL(url).searchParams.get('se')) - Date.now()) / 60_000)
}

function timed({ status, took }) {
  return `HTTP ${status} after ${took} ms`
}

const ROUNDS = 4
const AT_ONCE = 10

/** Past that, no build would wait for it. */
const VISIBLE_MS = 60_000
