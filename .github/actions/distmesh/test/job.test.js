// Whole jobs: the action's steps as processes, by the `with:` of a workflow file that people copy, with the real distmesh, distcc and
// compiler. The runners share a directory in place of GitHub; github.test.js has the rest.

import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { DISTMESH, FakeRunner, ROOT, stepsOf } from './fake-runner.js'

const EXAMPLE = join(ROOT, 'examples', 'cmake')
const [PRIMARY, WORKER] = stepsOf(join(EXAMPLE, '.github', 'workflows', 'build.yml')).map((step) => step.with)

const SECRET = 'correct-horse-battery-staple-0123456789'
const RUNTIME_TOKEN = 'eyJ-the-runtime-token-of-this-run'
const REST_TOKEN = 'ghs_the-rest-token-of-this-job'
const HIDDEN = [SECRET, RUNTIME_TOKEN, REST_TOKEN]

/** What the workflow's expressions stand for. */
const CONTEXT = { 'secrets.ENCRYPTION_KEY': SECRET, 'github.token': REST_TOKEN, 'matrix.worker': '1' }

/** The jobs of one run: each has a runner of its own, and they share a directory. */
function run(t, options = {}) {
  const shared = mkdtempSync(join(tmpdir(), 'rv-'))
  t.after(() => rmSync(shared, { recursive: true, force: true }))
  const extra = { version: 'installed', rendezvous: `dir:${shared}` }
  const job = () => {
    const runner = new FakeRunner({
      ...options,
      env: { PATH: `${dirname(DISTMESH)}:${process.env.PATH}`, DISTMESH_STUN: 'none', ...options.env },
      actionEnv: { ACTIONS_RUNTIME_TOKEN: RUNTIME_TOKEN, ACTIONS_RESULTS_URL: 'http://127.0.0.1:9/' },
    })
    t.after(() => runner.remove())
    return runner
  }
  return { job, extra }
}

const BUILD = 'distmesh build -- cmake -S . -B out >/dev/null; distmesh build --require-workers "$1" -- cmake --build out -j'
const build = (workers) => `set -- ${workers}; ${BUILD}`

test('a primary and two workers build a project by the workflow of the example', { timeout: 600_000 }, async (t) => {
  const { job, extra } = run(t)
  const workers = ['1', '2'].map((number) => {
    const runner = job()
    return { runner, step: runner.startMain({ ...WORKER, ...extra, slots: '2' }, { ...CONTEXT, 'matrix.worker': number }) }
  })
  const primary = job()
  const main = await primary.main({ ...PRIMARY, ...extra }, CONTEXT)
  assert.equal(main.code, 0, main.log)
  assert.match(primary.outputs['workers-online'], /^\d+$/)
  assert.equal(primary.exported.DISTMESH_WORKERS, '3')
  assert.equal(primary.exported.DISTMESH_MIN_WORKERS, '1')

  primary.project(EXAMPLE)
  const built = await primary.run(build(2))
  assert.equal(built.code, 0, built.log)
  assert.match(built.log, /7 compiles in .*: 7 remote \(100 %\), 0 local/)
  const tested = await primary.run('ctest --test-dir out')
  assert.equal(tested.code, 0, tested.log)

  const environment = await primary.run('env')
  for (const hidden of HIDDEN) {
    assert.equal(environment.log.includes(hidden), false, `a later step sees ${hidden}`)
    assert.equal(primary.everything().includes(hidden), false, `${hidden} is written down while the session runs`)
  }
  const post = await primary.post()
  assert.equal(post.code, 0, post.log)
  assert.match(post.log, /::group::distmesh: what the session said in the background\n::stop-commands::/)
  assert.match(post.log, /link to worker-1 is up/)
  assert.match(primary.summary, /\*\*7 of 7 compiles\*\* were made by 2 workers/)
  assert.match(primary.summary, /2 of 3 expected workers came/)
  assert.match(primary.summary, /\| worker-2 \| 2 \| \d \| up \| direct \|/)
  for (const { runner, step } of workers) {
    const { code, log } = await step.ended
    assert.equal(code, 0, log)
    assert.match(log, /worker stopped: the primary is done: distmesh down/)
    for (const hidden of HIDDEN) assert.equal(runner.everything().includes(hidden), false)
  }
  for (const hidden of HIDDEN) assert.equal(primary.everything().includes(hidden), false)
  assert.deepEqual(readdirSync(primary.env.RUNNER_TEMP), ['distmesh-report'], 'the session leaves only its report')
})

test('a step that waits has the workers in its outputs, for builds that call distcc themselves', { timeout: 600_000 }, async (t) => {
  const { job, extra } = run(t)
  const worker = job()
  const step = worker.startMain({ ...WORKER, ...extra, slots: '3' }, CONTEXT)
  const [alone, primary] = [job(), job()]
  const given = { ...PRIMARY, ...extra, 'wait-here': 'true' }
  // Another session than the worker's: nobody comes, and that is no failure.
  const waited = await alone.main({ ...given, session: 'another', 'wait-timeout': '1' }, CONTEXT)
  assert.equal(waited.code, 0, waited.log)
  assert.match(waited.log, /^::warning title=distmesh::0 of 1 workers came in time/m)
  assert.deepEqual([alone.outputs.session, alone.outputs['workers-online'], alone.outputs['distcc-hosts']], ['another', '0', ''])
  await alone.post()
  const main = await primary.main(given, CONTEXT)
  assert.equal(main.code, 0, main.log)
  assert.equal(primary.outputs['workers-online'], '1')
  assert.match(primary.outputs['distcc-hosts'], /^127\.0\.0\.1:\d+\/3,lzo$/)
  assert.ok(Number(primary.outputs['distcc-j']) > 3)
  await primary.post()
  assert.equal((await step.ended).code, 0)
})

test('a fork gets one notice, and its build goes on alone; its workers end at once', { timeout: 600_000 }, async (t) => {
  const event = { pull_request: { head: { repo: { full_name: 'somebody-else/project' } } } }
  const { job, extra } = run(t, { event })
  const context = { ...CONTEXT, 'secrets.ENCRYPTION_KEY': '' }
  const primary = job()
  const main = await primary.main({ ...PRIMARY, ...extra }, context)
  assert.equal(main.code, 0, main.log)
  assert.match(main.log, /^::notice title=distmesh::building on this machine alone: this pull request comes from a fork/m)
  assert.doesNotMatch(main.log, /::(warning|error) /)
  assert.deepEqual([primary.outputs.session, primary.outputs['workers-online']], ['', '0'])
  assert.ok(Number(primary.outputs['distcc-j']) >= 1)
  primary.project(EXAMPLE)
  const built = await primary.run(build(0))
  assert.equal(built.code, 0, built.log)
  assert.doesNotMatch(built.log, /waiting for workers|warning:/, 'nobody is waited for, and it was said once')
  assert.equal((await primary.post()).code, 0)
  assert.match(primary.summary, /built on its own machine alone/)

  const worker = await job().main({ ...WORKER, ...extra }, context)
  assert.equal(worker.code, 0, worker.log)
  assert.match(worker.log, /^::notice title=distmesh::this worker has nothing to do: this pull request comes from a fork/m)
})

test('a secret that somebody forgot is a warning with its cure', { timeout: 600_000 }, async (t) => {
  const { job, extra } = run(t)
  for (const given of [PRIMARY, WORKER]) {
    const { code, log } = await job().main({ ...given, ...extra }, { ...CONTEXT, 'secrets.ENCRYPTION_KEY': '' })
    assert.equal(code, 0, log)
    assert.match(log, /^::warning title=distmesh::.*there is no secret\. Try: make one with `distmesh keygen`/m)
  }
})

test('a mesh that cannot come up costs the build its workers, not its success', { timeout: 600_000 }, async (t) => {
  const { job, extra } = run(t)
  const [primary, worker] = [job(), job()]
  const nowhere = { ...extra, rendezvous: 'dir:/dev/null/nowhere' }
  const main = await primary.main({ ...PRIMARY, ...nowhere }, CONTEXT)
  assert.equal(main.code, 0, main.log)
  assert.match(main.log, /^::warning title=distmesh::building on this machine alone: `distmesh up` ended with 96\. Try: /m)
  primary.project(EXAMPLE)
  const built = await primary.run(build(0))
  assert.equal(built.code, 0, built.log)
  assert.doesNotMatch(built.log, /warning:/)
  assert.equal((await primary.post()).code, 0)
  const started = await worker.main({ ...WORKER, ...nowhere }, CONTEXT)
  assert.equal(started.code, 1, 'a worker that cannot start is red')
  assert.match(started.log, /^::error title=distmesh::the worker ended with 96\. Try: /m)
})

test('a cancelled worker ends within the time that GitHub leaves it', { timeout: 600_000 }, async (t) => {
  const { job, extra } = run(t)
  const { child, ended, written } = job().startMain({ ...WORKER, ...extra }, CONTEXT)
  while (!written.text.includes('worker worker-1: ')) await sleep(50)
  child.kill('SIGINT')
  const { code, log } = await ended
  assert.equal(code, 0, log)
  assert.match(log, /worker stopped: SIGINT/)
})

test('a worker for which no primary comes ends by itself', { timeout: 600_000 }, async (t) => {
  const { job, extra } = run(t)
  const { code, log } = await job().main({ ...WORKER, ...extra, 'wait-primary': '1' }, CONTEXT)
  assert.equal(code, 0, log)
  assert.match(log, /worker stopped: /)
})

test('an input that makes no sense stops the step before anything is done', async (t) => {
  const { job, extra } = run(t)
  const runner = job()
  const { code, log } = await runner.main({ ...PRIMARY, ...extra, mode: 'both' }, CONTEXT)
  assert.equal(code, 1)
  assert.equal(log, '::error title=distmesh::the input mode is `both`. Try: write primary on the job that builds, worker on the jobs that help\n')
  assert.equal((await runner.post()).code, 0, 'and its end has nothing to do')
})
