// What both modes need first: distmesh, distcc, packages; distmesh goes onto PATH for the steps that follow.

import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { arch, platform } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { Failure } from './failure.js'
import { capture, publicEnv, run, which } from './process.js'
import { Missing, assetOf, commitOfTag, download, targetOf } from './release.js'

/**
 * @typedef {object} Job
 * @property {string} distmesh the program
 *
 * @param {import('./runner.js').Runner} runner
 * @param {import('./inputs.js').Inputs} inputs
 * @returns {Promise<Job>}
 */
export async function prepare(runner, inputs) {
  return runner.group('distmesh: prepare this runner', async () => {
    const env = publicEnv(runner.env)
    await installPackages(runner, inputs, env)
    const distmesh = await obtain(runner, inputs, env)
    const { code, text } = await capture(distmesh, ['--version'], { env })
    if (code !== 0) throw new Failure(`${distmesh} does not run here`, 'compile it: `version: source`')
    runner.say(`${text.trim()}: ${distmesh}`)
    runner.addPath(dirname(distmesh))
    runner.output('distmesh-path', distmesh)
    return { distmesh }
  })
}

/** A worker cannot do without distccd; a primary without distcc still builds, alone, and `distmesh build` says why. */
async function installPackages(runner, inputs, env) {
  const wanted = [...inputs.packages]
  const program = inputs.mode === 'worker' ? 'distccd' : 'distcc'
  if (!which(program, env)) {
    if (inputs.installDistcc) wanted.push('distcc')
    else runner.warn(`${program} is not on PATH. Try: leave out \`install-distcc: false\`, or install it in a step before`)
  }
  if (wanted.length === 0) return
  runner.say(`installing ${wanted.join(' ')}`)
  try {
    await install(wanted, env)
  } catch (error) {
    const dispensable = inputs.mode === 'primary' && inputs.packages.length === 0
    if (!dispensable || !(error instanceof Failure)) throw error
    runner.warn(error.toString())
  }
}

async function install(packages, env) {
  for (const [command, ...args] of installers(packages, env)) {
    const code = await run(command, args, { env: { ...env, ...UNATTENDED } })
    if (code === 0) continue
    throw new Failure(
      `${packages.join(' ')} cannot be installed: \`${[command, ...args].join(' ')}\` ended with ${code}`,
      'look at the lines above; or install them in a step of your own and say `install-distcc: false`',
    )
  }
}

/** The commands that install packages here. */
function installers(packages, env) {
  if (which('apt-get', env)) {
    const root = process.getuid() === 0 ? [] : ['sudo', '-n', 'env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1']
    const quiet = ['-qq', '-o=Dpkg::Use-Pty=0', '-o=DPkg::Lock::Timeout=120']
    return [
      [...root, 'apt-get', 'update', ...quiet],
      [...root, 'apt-get', 'install', '-y', '--no-install-recommends', ...quiet, ...packages],
    ]
  }
  if (which('brew', env)) return [['brew', 'install', '--quiet', ...packages]]
  throw new Failure(
    `neither apt-get nor brew is here to install ${packages.join(' ')}`,
    'install them in a step of your own and say `install-distcc: false`',
  )
}

/** No question is asked, and Debian's distcc does not start a service of its own, for which distmesh has no use. */
const UNATTENDED = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1', HOMEBREW_NO_AUTO_UPDATE: '1', HOMEBREW_NO_ENV_HINTS: '1' }

/** Finds, downloads or compiles the program. */
async function obtain(runner, inputs, env) {
  const version = inputs.version || (await versionOfAction(runner, inputs, env))
  if (version === 'installed') return installed(env)
  if (version === 'source') return compiled(runner, env)
  if (inputs.version) return released(runner, version, env)
  return releasedOrCompiled(runner, version, env)
}

/** A tag may be there before its release, or in a fork that makes none. */
async function releasedOrCompiled(runner, version, env) {
  try {
    return await released(runner, version, env)
  } catch (error) {
    if (!(error instanceof Missing)) throw error
    runner.say(`${error.message}: compiling it`)
    return compiled(runner, env)
  }
}

function installed(env) {
  const found = which('distmesh', env)
  if (found) return found
  throw new Failure('distmesh is not on PATH, though the workflow says `version: installed`', 'leave `version` out')
}

/**
 * The release that was made of the action's own commit: a workflow that pins the action by a tag or by a commit gets exactly that.
 * A commit that no release was made of is compiled.
 */
async function versionOfAction(runner, inputs, env) {
  const version = /^version = "(.+)"$/m.exec(readFileSync(join(ROOT, 'Cargo.toml'), 'utf8'))?.[1]
  const tag = `v${version}`
  if (env.GITHUB_ACTION_REF === tag) return version
  const commit = await commitOfAction(env)
  if (commit) {
    const question = { api: env.GITHUB_API_URL, repository: repositoryOf(env), tag, token: inputs.token }
    if ((await commitOfTag(question)) === commit) return version
  }
  runner.say(`no release was made of this commit of the action (${commit ?? 'unknown'}): compiling it`)
  return 'source'
}

/** The commit of the action's own files; `undefined` when they are not as committed, or nobody can tell. */
async function commitOfAction(env) {
  if (/^[0-9a-f]{40}$/.test(env.GITHUB_ACTION_REF ?? '')) return env.GITHUB_ACTION_REF
  if (!existsSync(join(ROOT, '.git')) || !which('git', env)) return undefined
  const git = (...args) => capture('git', ['-C', ROOT, ...args], { env, quiet: true })
  const [head, changes] = [await git('rev-parse', 'HEAD'), await git('status', '--porcelain')]
  if (head.code !== 0 || changes.code !== 0 || changes.text !== '') return undefined
  return head.text.trim()
}

/** An action of the workflow's own repository has no repository of its own. */
function repositoryOf(env) {
  return env.GITHUB_ACTION_REPOSITORY || env.GITHUB_REPOSITORY
}

async function released(runner, version, env) {
  const target = targetOf(platform(), arch())
  if (!target) {
    throw new Missing(`there is no release of distmesh for ${platform()} on ${arch()}`, 'compile it: `version: source`')
  }
  return kept(version, env, async (dir) => {
    const release = { server: env.GITHUB_SERVER_URL, repository: repositoryOf(env), version, target }
    runner.say(`downloading distmesh ${version} for ${target} from ${release.repository}`)
    const archive = join(dir, 'archive.tgz')
    writeFileSync(archive, await download(release))
    const code = await run('tar', ['-xzf', archive, '-C', dir, '--strip-components=1'], { env })
    if (code !== 0) throw new Failure(`the archive ${assetOf(version, target)}.tgz cannot be unpacked`, 'compile it: `version: source`')
    rmSync(archive)
    return join(dir, 'distmesh')
  })
}

async function compiled(runner, env) {
  if (!which('cargo', env)) {
    throw new Failure('distmesh has to be compiled, and cargo is not on PATH', 'install Rust 1.88 or newer (https://rustup.rs), or name a release: `version: 0.1.0`')
  }
  return kept(await commitOfAction(env), env, async (dir) => {
    runner.say('compiling distmesh: some minutes, once a commit where the tool cache is kept')
    const target = { CARGO_TARGET_DIR: env.CARGO_TARGET_DIR ?? join(temporary(env), 'distmesh-target') }
    const args = ['install', '--locked', '--quiet', '--no-track', '--path', ROOT, '--root', dir]
    const code = await run('cargo', args, { env: { ...env, ...target } })
    if (code !== 0) throw new Failure(`cargo could not compile distmesh: it ended with ${code}`, 'look at the lines above; Rust 1.88 or newer is needed')
    return join(dir, 'bin', 'distmesh')
  })
}

/**
 * The program of this key from the tool cache, or a fresh one, which is put there when it is whole: jobs of one machine may look for
 * it at the same time. Without a key it is made anew each time.
 */
async function kept(key, env, make) {
  const home = join(env.RUNNER_TOOL_CACHE || temporary(env), 'distmesh', key ?? `unknown-${randomUUID()}`)
  const dir = join(home, arch())
  const found = ['distmesh', join('bin', 'distmesh')].map((name) => join(dir, name)).find(existsSync)
  if (found) return found
  const fresh = join(home, `.${randomUUID()}`)
  mkdirSync(fresh, { recursive: true })
  try {
    const program = await make(fresh)
    if (!existsSync(program)) throw new Failure('there is no program `distmesh` in what was got', 'name another `version`')
    place(fresh, dir)
    return join(dir, program.slice(fresh.length + 1))
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

/** Another job of this machine that was quicker has put the same there. */
function place(fresh, dir) {
  try {
    renameSync(fresh, dir)
  } catch (error) {
    if (!existsSync(dir)) throw error
  }
}

function temporary(env) {
  if (env.RUNNER_TEMP) return env.RUNNER_TEMP
  throw new Failure('RUNNER_TEMP is not set', 'run this as an action of a GitHub workflow')
}

/** The action lies in `.github/actions/distmesh` of distmesh's own repository, all of which the runner has downloaded. */
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..')
