import assert from 'node:assert/strict'
import test from 'node:test'

import { splitLog } from '../lib/log.js'
import { publicEnv } from '../lib/process.js'
import { Runner } from '../lib/runner.js'
import { nodeEnv, removeDir, runtimeDirOf, sessionVariables, whyAlone } from '../lib/session.js'
import { markdown } from '../lib/summary.js'

const NOTHING = { secret: '', trustRun: false, session: '', rendezvous: '', token: '' }

test('programs of others get neither tokens nor inputs nor the secret', () => {
  const env = publicEnv({
    PATH: '/bin',
    ACTIONS_RUNTIME_TOKEN: 'x',
    ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'x',
    GITHUB_TOKEN: 'x',
    GH_TOKEN: 'x',
    ENCRYPTION_KEY: 'x',
    INPUT_SECRET: 'x',
    STATE_session: 'x',
    GITHUB_SHA: 'abc',
  })
  assert.deepEqual(env, { PATH: '/bin', GITHUB_SHA: 'abc' })
})

test('a node gets the token and the secret, and no input', () => {
  const env = { ACTIONS_RUNTIME_TOKEN: 't', INPUT_SECRET: 's', STATE_x: 'y', ENCRYPTION_KEY: 'of the job' }
  const node = nodeEnv(env, { ...NOTHING, secret: 's', token: 'g' }, { DISTMESH_SESSION: 'a' })
  assert.deepEqual(node, { ACTIONS_RUNTIME_TOKEN: 't', ENCRYPTION_KEY: 's', GITHUB_TOKEN: 'g', DISTMESH_SESSION: 'a' })
  assert.deepEqual(nodeEnv({ ENCRYPTION_KEY: ' ' }, NOTHING, {}), {}, 'a blank key is none')
})

test('only what a workflow says is exported to later steps', () => {
  assert.deepEqual(sessionVariables(NOTHING, '/r'), { DISTMESH_RUNTIME_DIR: '/r' })
  const said = { ...NOTHING, secret: 's', token: 'g', session: 'a', rendezvous: 'dir:/x', trustRun: true }
  assert.deepEqual(sessionVariables(said, '/r'), {
    DISTMESH_RUNTIME_DIR: '/r',
    DISTMESH_SESSION: 'a',
    DISTMESH_RENDEZVOUS: 'dir:/x',
    DISTMESH_TRUST_RUN: 'true',
  })
})

test('a fork and Dependabot are told from a secret that somebody forgot', () => {
  const here = { GITHUB_REPOSITORY: 'a/b', GITHUB_ACTOR: 'somebody' }
  const from = (name) => ({ pull_request: { head: { repo: name && { full_name: name } } } })
  assert.equal(whyAlone({ ...NOTHING, secret: 's' }, from('c/b'), here), undefined)
  assert.equal(whyAlone({ ...NOTHING, trustRun: true }, from('c/b'), here), undefined)
  assert.equal(whyAlone(NOTHING, from('c/b'), here).usual, true)
  assert.equal(whyAlone(NOTHING, from(null), here).usual, true, 'the fork is deleted')
  assert.equal(whyAlone(NOTHING, from('a/b'), here).usual, false)
  assert.equal(whyAlone(NOTHING, {}, { ...here, GITHUB_ACTOR: 'dependabot[bot]' }).usual, true)
  assert.equal(whyAlone(NOTHING, {}, here).usual, false)
})

test('a runtime directory whose sockets would have too long a name is made elsewhere', () => {
  assert.equal(runtimeDirOf({ RUNNER_TEMP: '/home/runner/_work/_temp' }, ''), '/home/runner/_work/_temp/distmesh')
  assert.equal(runtimeDirOf({ RUNNER_TEMP: '/Users/runner/_work/_temp' }, ''), '/Users/runner/_work/_temp/distmesh')
  const elsewhere = runtimeDirOf({ RUNNER_TEMP: '/' + 'x'.repeat(40) }, 'y'.repeat(20))
  removeDir(elsewhere)
  assert.match(elsewhere, /^\/tmp\/distmesh-/)
})

test('annotations of the background are told from its lines', () => {
  const text = 'distmesh: one\ndistmesh: warning: 100 % lost\n::warning title=distmesh::100 %25 lost%0Aagain\n::error::not ours\n'
  assert.deepEqual(splitLog(text), {
    lines: ['distmesh: one', 'distmesh: warning: 100 % lost', '::error::not ours'],
    warnings: ['100 % lost\nagain'],
  })
  const { lines } = splitLog('x\n'.repeat(5_000))
  assert.equal(lines.length, 2_001)
  assert.equal(lines[0], '(3000 earlier lines are left out)')
})

test('quoted text cannot command the runner, and annotations cannot be broken out of', () => {
  let log = ''
  const runner = new Runner({}, { write: (text) => (log += text) })
  runner.quote('::error::x')
  const [, token] = /^::stop-commands::(\S+)\n/.exec(log)
  assert.equal(log, `::stop-commands::${token}\n::error::x\n::${token}::\n`)
  log = ''
  runner.warn('50 %\n::error::x')
  assert.equal(log, '::warning title=distmesh::50 %25%0A::error::x\n')
  log = ''
  runner.mask('a\n\nb%\n')
  assert.equal(log, '::add-mask::a\n::add-mask::b%25\n')
})

const REPORT = {
  wall_s: 12.34,
  exit_code: 0,
  jobs: { seen: 10, remote: 8, local: 2, cancelled: 0, reattempted: 1, hedged: 0 },
  local_reasons: { 'it links': 2 },
  workers: [
    { name: 'w1', slots: 4, jobs: 8, state: 'up', path: 'relayed', relay: 'w2', nat: 'a|b', up_after_s: 0.74 },
    { name: 'w2', slots: 2, jobs: 0, state: 'down', path: null, relay: null, nat: null, up_after_s: null },
  ],
  expected_workers: 3,
  refused: [{ worker: 'w2', compiler: '/usr/bin/gcc', reason: 'another version' }],
  incidents: [{ at_ms: 1, text: '<script>\nw2 is gone' }],
  incidents_left_out: 0,
}

test('the summary says how many, by whom, and why not', () => {
  const text = markdown(REPORT, { alone: false })
  assert.match(text, /\*\*8 of 10 compiles\*\* were made by 1 worker in 12\.3 s; 1 of 3 expected workers came\. 1 of them took more/)
  assert.match(text, /\| w1 \| 4 \| 8 \| up \| relayed by w2 \| 0\.7 s \| a\\\|b \|/)
  assert.match(text, /\| w2 \| 2 \| 0 \| down \| – \| – \| – \|/)
  assert.match(text, /- 2: it links/)
  assert.match(text, /- \\<script\\> w2 is gone/)
  assert.doesNotMatch(text, /<script>/)
})

test('a job without a build and one without a session say so', () => {
  assert.match(markdown(undefined, { alone: true }), /built on its own machine alone.*\n.*No `distmesh build`/s)
  assert.match(markdown(REPORT, { alone: true }), /built on its own machine alone/)
})
