// How a runner gets distmesh and distcc. Releases come from a server on this machine; apt-get and cargo are scripts that write down
// how they were called.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { arch } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'

import { targetOf } from '../lib/release.js'
import { DISTMESH, FakeRunner, ROOT } from './fake-runner.js'

const VERSION = /^version = "(.+)"$/m.exec(readFileSync(join(ROOT, 'Cargo.toml'), 'utf8'))[1]
const TARGET = targetOf(process.platform, process.arch)
const COMMIT = 'c0ffee'.padEnd(40, '0')
const TOKEN = 'token-of-the-run'

/** A job on a machine that has nothing on PATH but what a test puts there, and the tools that scripts need. */
function bareJob(t, env = {}) {
  const bin = join('bin')
  const runner = new FakeRunner({ env, actionEnv: { ACTIONS_RUNTIME_TOKEN: TOKEN } })
  t.after(() => runner.remove())
  runner.bin = join(runner.dir, bin)
  mkdirSync(runner.bin)
  for (const tool of ['tar', 'gzip', 'sh', 'bash', 'env', 'cp', 'mkdir', 'cat']) {
    symlinkSync(execFileSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(), join(runner.bin, tool))
  }
  runner.env.PATH = runner.bin
  return runner
}

/** Puts a program on the job's PATH that writes down how it was called, and in what environment. */
function script(runner, name, body) {
  const path = join(runner.bin, name)
  writeFileSync(path, `#!/bin/sh\necho "$@" >>${runner.dir}/${name}.calls\nenv >>${runner.dir}/${name}.env\n${body}\n`)
  chmodSync(path, 0o755)
}

const calls = (runner, name) => {
  const path = join(runner.dir, `${name}.calls`)
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : []
}

/** A server that has one release, made by scripts/package; `answers` come before it, by URL. */
async function release(t, answers = {}) {
  const runner = new FakeRunner()
  t.after(() => runner.remove())
  execFileSync(join(ROOT, 'scripts', 'package'), [DISTMESH, TARGET, runner.dir])
  const seen = []
  const server = createServer((request, response) => {
    seen.push(`${request.url} ${request.headers.authorization ?? ''}`.trim())
    const next = (answers[request.url] ?? []).shift()
    const file = join(runner.dir, request.url.split('/').at(-1))
    if (next) response.writeHead(next.status ?? 200).end(next.body ?? '')
    else if (request.url.includes(`/releases/download/v${VERSION}/`) && existsSync(file)) response.end(readFileSync(file))
    else response.writeHead(404).end()
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return { at: `http://127.0.0.1:${server.address().port}`, seen }
}

const asset = (repository) => `/${repository}/releases/download/v${VERSION}/distmesh-${TARGET}-v${VERSION}.tgz`
const worker = { mode: 'primary', 'install-distcc': 'false' }

test('a release is downloaded, compared with its checksum, and taken from the tool cache the next time', async (t) => {
  const { at, seen } = await release(t)
  const runner = bareJob(t, { GITHUB_SERVER_URL: at })
  const { code, log } = await runner.main({ ...worker, version: VERSION }, { 'github.token': 'rest-token' })
  assert.equal(code, 0, log)
  const program = join(runner.dir, 'tools', 'distmesh', VERSION, arch(), 'distmesh')
  assert.equal(runner.outputs['distmesh-path'], program)
  assert.ok(existsSync(`${program}-shim`))
  assert.deepEqual(seen.sort(), [asset('somebody/project'), `${asset('somebody/project')}.sha256`], 'no token goes to a download')
  assert.match((await runner.run('distmesh --version')).log, new RegExp(`^distmesh ${VERSION}\n$`))
  assert.equal((await runner.main({ ...worker, version: VERSION })).code, 0)
  assert.equal(seen.length, 2)
})

test('an archive that is not what its checksum says is not used', async (t) => {
  const { at } = await release(t, { [asset('somebody/project')]: [{ body: 'something else' }] })
  const runner = bareJob(t, { GITHUB_SERVER_URL: at })
  const { code, log } = await runner.main({ ...worker, version: VERSION })
  assert.equal(code, 1)
  assert.match(log, /^::error title=distmesh::.*is not what its checksum says: sha256 [0-9a-f]{64}, not [0-9a-f]{64}\. Try: /m)
  assert.equal(existsSync(join(runner.dir, 'tools', 'distmesh', VERSION, arch())), false)
})

test('a download that fails is tried again, and a missing release is said at once', async (t) => {
  const busy = { [asset('somebody/project')]: [{ status: 503 }], [`${asset('somebody/project')}.sha256`]: [{ status: 429 }] }
  const { at, seen } = await release(t, busy)
  assert.equal((await bareJob(t, { GITHUB_SERVER_URL: at }).main({ ...worker, version: VERSION })).code, 0)
  assert.equal(seen.length, 4)
  const { code, log } = await bareJob(t, { GITHUB_SERVER_URL: at }).main({ ...worker, version: '9.9.9' })
  assert.equal(code, 1)
  assert.match(log, /v9\.9\.9.* cannot be downloaded: HTTP 404\. Try: name a release that exists/)
})

test('an action pinned by a tag or by its commit gets the release of that commit, from its own repository', async (t) => {
  const tag = `/repos/me/distmesh/commits/v${VERSION}`
  const { at, seen } = await release(t, { [tag]: [{ body: COMMIT }] })
  const from = { GITHUB_SERVER_URL: at, GITHUB_API_URL: at, GITHUB_ACTION_REPOSITORY: 'me/distmesh' }
  const tagged = await bareJob(t, { ...from, GITHUB_ACTION_REF: `v${VERSION}` }).main(worker)
  assert.equal(tagged.code, 0, tagged.log)
  assert.deepEqual([...new Set(seen)].sort(), [asset('me/distmesh'), `${asset('me/distmesh')}.sha256`])
  seen.length = 0
  const pinned = await bareJob(t, { ...from, GITHUB_ACTION_REF: COMMIT }).main(worker, { 'github.token': 'rest-token' })
  assert.equal(pinned.code, 0, pinned.log)
  assert.deepEqual(seen.sort(), [asset('me/distmesh'), `${asset('me/distmesh')}.sha256`, `${tag} Bearer rest-token`])
})

test('a commit that no release was made of is compiled once, by a cargo that knows no token', async (t) => {
  const { at } = await release(t, { [`/repos/me/distmesh/commits/v${VERSION}`]: [{ body: 'd'.repeat(40) }, { body: 'd'.repeat(40) }] })
  const runner = bareJob(t, { GITHUB_API_URL: at, GITHUB_ACTION_REPOSITORY: 'me/distmesh', GITHUB_ACTION_REF: COMMIT })
  script(runner, 'cargo', `while [ "$1" != --root ]; do shift; done; mkdir "$2/bin" && cp ${DISTMESH} "$2/bin/distmesh"`)
  const secret = 'the-secret-that-nobody-may-see'
  const { code, log } = await runner.main({ ...worker, secret: '${{ secrets.KEY }}' }, { 'secrets.KEY': secret, 'github.token': 'rest-token' })
  await runner.post()
  assert.equal(code, 0, log)
  assert.match(log, new RegExp(`no release was made of this commit of the action \\(${COMMIT}\\): compiling it`))
  assert.match(calls(runner, 'cargo')[0], /^install --locked .*--path \S+ --root /)
  const env = readFileSync(join(runner.dir, 'cargo.env'), 'utf8')
  for (const hidden of [secret, TOKEN, 'rest-token']) assert.equal(env.includes(hidden), false)
  assert.equal((await runner.main(worker)).code, 0)
  assert.equal(calls(runner, 'cargo').length, 1)
})

test('a tag that no release was made of is compiled, unless the workflow names that release', async (t) => {
  const from = { GITHUB_ACTION_REPOSITORY: 'me/fork', GITHUB_ACTION_REF: `v${VERSION}` }
  const gone = Object.fromEntries([asset('me/fork'), `${asset('me/fork')}.sha256`].map((url) => [url, [{ status: 404 }, { status: 404 }]]))
  const empty = await release(t, gone)
  const runner = bareJob(t, { ...from, GITHUB_SERVER_URL: empty.at })
  script(runner, 'cargo', `while [ "$1" != --root ]; do shift; done; mkdir "$2/bin" && cp ${DISTMESH} "$2/bin/distmesh"`)
  const { code, log } = await runner.main(worker)
  assert.equal(code, 0, log)
  assert.match(log, /cannot be downloaded: HTTP 404: compiling it/)
  assert.equal(calls(runner, 'cargo').length, 1)
  const named = await runner.main({ ...worker, version: VERSION })
  assert.deepEqual([named.code, calls(runner, 'cargo').length], [1, 1], named.log)
})

test('what cannot be had is said with a cure', async (t) => {
  const missing = await bareJob(t).main({ ...worker, version: 'installed' })
  assert.deepEqual([missing.code, /distmesh is not on PATH.*Try: leave `version` out/.test(missing.log)], [1, true])
  const noCargo = await bareJob(t).main({ ...worker, version: 'source' })
  assert.deepEqual([noCargo.code, /cargo is not on PATH\. Try: install Rust/.test(noCargo.log)], [1, true])
  const noManager = await bareJob(t).main({ mode: 'worker', version: 'installed' })
  assert.deepEqual([noManager.code, /neither apt-get nor brew is here to install distcc\. Try: /.test(noManager.log)], [1, true])
})

test('distcc and the packages that were asked for are installed by an apt-get that knows no token', async (t) => {
  const runner = bareJob(t)
  symlinkSync(DISTMESH, join(runner.bin, 'distmesh'))
  script(runner, 'apt-get', '')
  script(runner, 'sudo', 'shift; exec "$@"')
  const { code, log } = await runner.main({ mode: 'primary', version: 'installed', packages: 'g++-13 ninja-build' })
  assert.equal(code, 0, log)
  const [update, install] = calls(runner, 'apt-get')
  assert.match(update, /^update /)
  assert.match(install, /^install -y --no-install-recommends .* g\+\+-13 ninja-build distcc$/)
  const env = readFileSync(join(runner.dir, 'apt-get.env'), 'utf8')
  assert.equal(env.includes(TOKEN), false)
  assert.match(env, /^RUNLEVEL=1$/m)
})

test('a distcc that cannot be installed costs a primary its workers, and ends a worker', async (t) => {
  const broken = (mode) => {
    const runner = bareJob(t)
    symlinkSync(DISTMESH, join(runner.bin, 'distmesh'))
    script(runner, 'apt-get', 'exit 100')
    script(runner, 'sudo', 'shift; exec "$@"')
    return runner.main({ mode, version: 'installed' })
  }
  const [primary, helper] = [await broken('primary'), await broken('worker')]
  assert.equal(primary.code, 0)
  assert.match(primary.log, /^::warning title=distmesh::distcc cannot be installed: .*ended with 100\. Try: /m)
  assert.equal(helper.code, 1)
  assert.match(helper.log, /^::error title=distmesh::distcc cannot be installed/m)
})

test('a primary where nothing installs packages builds alone, unless it asked for some', async (t) => {
  const job = (inputs) => {
    const runner = bareJob(t)
    symlinkSync(DISTMESH, join(runner.bin, 'distmesh'))
    return runner.main({ mode: 'primary', version: 'installed', ...inputs })
  }
  const without = await job({})
  assert.equal(without.code, 0, without.log)
  assert.match(without.log, /^::warning title=distmesh::neither apt-get nor brew is here to install distcc\. Try: /m)
  const asked = await job({ packages: 'g++-13' })
  assert.equal(asked.code, 1)
})
