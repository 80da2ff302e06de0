// The selftest asks a fake GitHub, which does what distmesh takes for granted, and finds that it does; made to misbehave, it finds that.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'

import { startFake, whyNoFake } from '../../distmesh/test/fake-github.js'
import { FakeRunner } from '../../distmesh/test/fake-runner.js'
import { natChecks } from '../lib/nat.js'
import { table } from '../lib/table.js'
import { zipOf } from '../lib/zip.js'

const ACTION = join(dirname(fileURLToPath(import.meta.url)), '..')

/** A job of the fake's run that has the selftest as its step. */
function job(t, fake, number = 0) {
  const { ACTIONS_RESULTS_URL, ACTIONS_RUNTIME_TOKEN, GITHUB_TOKEN, ...env } = fake.jobs[number]
  // No PATH with distmesh: how this machine is seen from outside is not asked of anybody.
  const runner = new FakeRunner({ action: ACTION, env: { ...env, PATH: '/usr/bin:/bin' }, actionEnv: { ACTIONS_RESULTS_URL, ACTIONS_RUNTIME_TOKEN } })
  t.after(() => runner.remove())
  return { runner, token: GITHUB_TOKEN }
}

test('a zip file of one stored entry is one', () => {
  const dir = mkdtempSync(join(tmpdir(), 'zip-'))
  try {
    writeFileSync(join(dir, 'x.zip'), zipOf('entry', Buffer.from('content')))
    const read = 'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(z.namelist(), z.read("entry"))'
    assert.equal(execFileSync('python3', ['-c', read, join(dir, 'x.zip')], { encoding: 'utf8' }), "['entry'] b'content'\n")
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('a table tells what is needed from what is only good to know', () => {
  const text = table('a|b', [
    { what: 'one', held: true, found: 'yes', needed: true },
    { what: 'two', held: false, found: 'HTTP 500', needed: true },
    { what: 'three', held: false, found: '<b>', needed: false },
  ])
  assert.match(text, /^### a\\\|b: 1 of 3 hold$/m)
  assert.match(text, /^\| ✅ \| one \| yes \|$/m)
  assert.match(text, /^\| ❌ \| two \| HTTP 500 \|$/m)
  assert.match(text, /^\| ⚠️ \| three \| \\<b\\> \|$/m)
})

test('the class of the NAT comes from doctor, and no address with it', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'nat-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const checks = [
    { name: 'outside address', state: 'ok', what: '192.0.2.7:1 by somebody' },
    { name: 'NAT', state: 'ok', what: 'endpoint-independent: direct links with most machines' },
  ]
  writeFileSync(join(dir, 'distmesh'), `#!/bin/sh\necho '${JSON.stringify({ checks })}'\n`, { mode: 0o755 })
  const answers = []
  for await (const answer of natChecks({ PATH: `${dir}:/usr/bin:/bin` })) answers.push(answer)
  assert.deepEqual(answers.map(({ held, found }) => [held, found]), [
    [true, 'ok'],
    [true, 'endpoint-independent: direct links with most machines'],
  ])
})

test('outside of a run the first answer is that there is no token', async (t) => {
  const runner = new FakeRunner({ action: ACTION, env: { PATH: '/usr/bin:/bin' } })
  t.after(() => runner.remove())
  const { code, log } = await runner.main({ title: 'x', checks: 'results' })
  assert.equal(code, 1)
  assert.match(log, /^::error title=distmesh::distmesh takes for granted what does not hold here: an action has the address/m)
  assert.match(runner.summary, /### x: 0 of 2 hold/)
})

test('all that a fake GitHub does as the real one holds', { skip: whyNoFake }, async (t) => {
  const fake = await startFake(t)
  const { runner, token } = job(t, fake)
  await fake.jobsAre([{ id: 1, name: 'primary', status: 'in_progress', runner_name: fake.jobs[0].RUNNER_NAME }])
  const { code, log } = await runner.main({ title: 'GitHub' }, { 'github.token': token })
  assert.equal(code, 0, log)
  assert.match(runner.summary, /\| ✅ \| one Put Blob without Authorization is enough \| HTTP 201 \|/)
  assert.match(runner.summary, /\| ✅ \| the download is what was uploaded \|/)
  assert.match(runner.summary, /\| ✅ \| forty lists at once are not refused \| 40 × HTTP 200/)
  assert.match(runner.summary, /\| ✅ \| a 304 costs no quota \|/)
  assert.match(runner.summary, /\| ✅ \| a job is found by its runner's name \| yes \|/)
  assert.equal((runner.summary.match(/❌/g) ?? []).length, 0, runner.summary)
  const hidden = [token, fake.jobs[0].ACTIONS_RUNTIME_TOKEN, 'sig=']
  for (const secret of hidden) assert.equal(runner.everything().includes(secret), false, `${secret} is written down`)
})

test('what a fake GitHub does otherwise is found', { skip: whyNoFake }, async (t) => {
  const fake = await startFake(t)
  const { runner, token } = job(t, fake)
  await fake.fault('burned-name', 1)
  const { code } = await runner.main({ title: 'GitHub', checks: 'results' }, { 'github.token': token })
  assert.equal(code, 1)
  assert.match(runner.summary, /\| ❌ \| Finalize answers with the number of the artifact \| HTTP 500/)
  assert.doesNotMatch(runner.summary, /quota/, 'without a REST token nothing is asked there')
})
