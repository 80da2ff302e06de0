// Whole jobs against a fake GitHub: what GitHub's artifacts carry in earnest. The rendezvous, the session's name and the secret are the
// defaults that a workflow gets; the workflow is the example's.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'node:test'

import { startFake, whyNoFake } from './fake-github.js'
import { DISTMESH, FakeRunner, ROOT, stepsOf } from './fake-runner.js'

const EXAMPLE = join(ROOT, 'examples', 'cmake')
const [PRIMARY, WORKER] = stepsOf(join(EXAMPLE, '.github', 'workflows', 'build.yml')).map((step) => step.with)
const SECRET = 'correct-horse-battery-staple-0123456789'

/** The jobs of one run of the fake GitHub. */
function run(fake, t, options = {}) {
  const runners = fake.jobs.map(({ ACTIONS_RESULTS_URL, ACTIONS_RUNTIME_TOKEN, GITHUB_TOKEN, ...env }) => {
    const runner = new FakeRunner({
      ...options,
      env: { ...env, PATH: `${dirname(DISTMESH)}:${process.env.PATH}`, DISTMESH_STUN: 'none', RUNNER_DEBUG: '1' },
      actionEnv: { ACTIONS_RESULTS_URL, ACTIONS_RUNTIME_TOKEN },
    })
    t.after(() => runner.remove())
    return { runner, context: { 'secrets.ENCRYPTION_KEY': SECRET, 'github.token': GITHUB_TOKEN }, token: ACTIONS_RUNTIME_TOKEN }
  })
  return runners
}

const installed = (given) => ({ ...given, version: 'installed' })

/** The objects below a directory, by name. */
function objectsOf(dir) {
  const files = readdirSync(dir).map((name) => join(dir, name))
  return Object.fromEntries(
    files.flatMap((file) => {
      if (statSync(file).isDirectory()) return Object.entries(objectsOf(file))
      return file.endsWith('.cpp.o') ? [[file.split('/').at(-1), createHash('sha256').update(readFileSync(file)).digest('hex')]] : []
    }),
  )
}

test('one primary and three workers meet through artifacts, build, and all end well', { skip: whyNoFake, timeout: 600_000 }, async (t) => {
  const fake = await startFake(t)
  const [primary, ...workers] = run(fake, t).slice(0, 4)
  const main = await primary.runner.main(installed(PRIMARY), primary.context)
  assert.equal(main.code, 0, main.log)
  const steps = workers.map(({ runner, context }, index) =>
    runner.startMain(installed({ ...WORKER, slots: '1' }), { ...context, 'matrix.worker': `${index + 1}` }),
  )
  assert.match(primary.runner.outputs.session, new RegExp(`^${fake.run_id}\\.1$`))

  primary.runner.project(EXAMPLE)
  // A later step has neither token nor secret: it reaches the session through its socket.
  const configured = await primary.runner.run('distmesh build -- cmake -S . -B out')
  assert.equal(configured.code, 0, configured.log)
  const built = await primary.runner.run('distmesh build --require-workers 3 --wait 180s -- cmake --build out -j')
  assert.equal(built.code, 0, built.log)
  assert.match(built.log, /7 compiles in .*: 7 remote/)
  const remote = objectsOf(join(primary.runner.env.GITHUB_WORKSPACE, 'out'))
  const alone = await primary.runner.run('rm -r out && cmake -S . -B out && cmake --build out')
  assert.equal(alone.code, 0, alone.log)
  const local = objectsOf(join(primary.runner.env.GITHUB_WORKSPACE, 'out'))
  assert.equal(Object.keys(remote).length, 7)
  assert.deepEqual(remote, local, 'the objects are those of a local build')

  const hidden = [SECRET, fake.github_token, 'sig=', ...fake.jobs.map((job) => job.ACTIONS_RUNTIME_TOKEN)]
  const environment = await primary.runner.run('env')
  for (const secret of hidden) assert.equal(environment.log.includes(secret), false, `a later step sees ${secret}`)
  for (const secret of hidden) assert.equal(primary.runner.everything().includes(secret), false, `${secret} is written down`)

  const post = await primary.runner.post()
  assert.equal(post.code, 0, post.log)
  assert.match(primary.runner.summary, /\*\*7 of 7 compiles\*\* were made by [123] workers?/)
  for (const [index, step] of steps.entries()) {
    const { code, log } = await step.ended
    assert.equal(code, 0, log)
    assert.match(log, /worker stopped: the primary is done/)
    for (const secret of hidden) assert.equal(workers[index].runner.everything().includes(secret), false, `${secret} is written down`)
  }
  for (const secret of hidden) assert.equal(primary.runner.everything().includes(secret), false)
  t.diagnostic(`requests: ${JSON.stringify(await fake.counts())}`)
})

test('without a secret a run that trusts itself has a mesh too', { skip: whyNoFake, timeout: 600_000 }, async (t) => {
  const fake = await startFake(t)
  const [primary, worker] = run(fake, t)
  const trusting = (given) => installed({ ...given, 'trust-run': 'true' })
  const context = { ...primary.context, 'secrets.ENCRYPTION_KEY': '', 'matrix.worker': '1' }
  const main = await primary.runner.main(trusting(PRIMARY), context)
  assert.equal(main.code, 0, main.log)
  assert.doesNotMatch(main.log, /alone/)
  const step = worker.runner.startMain(trusting(WORKER), context)
  primary.runner.project(EXAMPLE)
  const built = await primary.runner.run(
    'distmesh build -- cmake -S . -B out && distmesh build --require-workers 1 --wait 180s -- cmake --build out -j',
  )
  assert.equal(built.code, 0, built.log)
  assert.match(built.log, /7 compiles in .*: 7 remote/)
  await primary.runner.post()
  assert.equal((await step.ended).code, 0)
})

test("a fork's pull request builds on one runner, with notices and no warning", { skip: whyNoFake, timeout: 600_000 }, async (t) => {
  const fake = await startFake(t)
  const [primary, worker] = run(fake, t, { event: { pull_request: { head: { repo: { full_name: 'a-fork/project' } } } } })
  const context = { ...primary.context, 'secrets.ENCRYPTION_KEY': '' }
  assert.equal((await primary.runner.main(installed(PRIMARY), context)).code, 0)
  assert.equal((await worker.runner.main(installed(WORKER), context)).code, 0)
  primary.runner.project(EXAMPLE)
  const built = await primary.runner.run('distmesh build -- cmake -S . -B out && distmesh build -- cmake --build out -j')
  assert.equal(built.code, 0, built.log)
  assert.equal((await primary.runner.post()).code, 0)
  assert.doesNotMatch(primary.runner.log + worker.runner.log, /^::(warning|error) /m)
  assert.deepEqual(await fake.counts(), {}, 'GitHub was asked nothing')
})

test('a worker ends when the release is there, though its primary never says goodbye', { skip: whyNoFake, timeout: 600_000 }, async (t) => {
  const fake = await startFake(t)
  const [primary, worker] = run(fake, t)
  const step = worker.runner.startMain(installed({ ...WORKER, 'until-artifact': 'release-*' }), { ...worker.context, 'matrix.worker': '1' })
  while (!step.written.text.includes('worker worker-1: ')) await new Promise((resolve) => setTimeout(resolve, 50))
  await publish(fake, primary.token, 'release-linux')
  const { code, log } = await step.ended
  assert.equal(code, 0, log)
  assert.match(log, /worker stopped: .*release-linux/)
})

/** Uploads an artifact as a job of the run does. */
async function publish(fake, token, name) {
  const { scp } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
  const [, run, job] = /Actions\.Results:([^:]+):(\S+)/.exec(scp)
  const ids = { workflow_run_backend_id: run, workflow_job_run_backend_id: job }
  const call = async (method, body) => {
    const url = `${fake.results}/twirp/github.actions.results.api.v1.ArtifactService/${method}`
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    return (await fetch(url, { method: 'POST', headers, body: JSON.stringify({ ...ids, name, ...body }) })).json()
  }
  const { signed_upload_url: url } = await call('CreateArtifact', { version: 4 })
  await fetch(url, { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob' }, body: 'release' })
  await call('FinalizeArtifact', { size: '7', hash: `sha256:${createHash('sha256').update('release').digest('hex')}` })
}
