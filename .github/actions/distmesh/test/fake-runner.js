// A runner for one job: it runs an action's steps as processes, hands them inputs, files and state as GitHub's runner does, and keeps
// everything that was written, so that a test can look for what must not be there.

import { spawn, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { parseYaml } from './yaml.js'

export const ACTION = join(dirname(fileURLToPath(import.meta.url)), '..')
export const ROOT = join(ACTION, '..', '..', '..')

/** The program that the tests drive. */
export const DISTMESH = process.env.DISTMESH_TEST_BINARY ?? join(ROOT, 'target', 'release', 'distmesh')

export class FakeRunner {
  /**
   * @param {object} options
   * @param {Record<string, string>} [options.env] variables of the job
   * @param {Record<string, string>} [options.actionEnv] variables that only actions get: the run's tokens
   * @param {object} [options.event] the event's payload
   * @param {string} [options.action] the action's directory
   */
  constructor({ env = {}, actionEnv = {}, event = {}, action = ACTION } = {}) {
    this.dir = mkdtempSync(join(tmpdir(), 'fr-'))
    this.action = action
    this.actionEnv = actionEnv
    this.log = ''
    this.state = {}
    this.outputs = {}
    this.path = []
    this.exported = {}
    this.summary = ''
    this.children = []
    for (const name of ['temp', 'tools', 'workspace']) mkdirSync(join(this.dir, name))
    writeFileSync(join(this.dir, 'event.json'), JSON.stringify(event))
    this.env = {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      CI: 'true',
      GITHUB_ACTIONS: 'true',
      GITHUB_REPOSITORY: 'somebody/project',
      GITHUB_RUN_ID: '4711',
      GITHUB_RUN_ATTEMPT: '1',
      GITHUB_ACTOR: 'somebody',
      GITHUB_EVENT_NAME: 'push',
      GITHUB_SERVER_URL: 'http://127.0.0.1:9',
      GITHUB_API_URL: 'http://127.0.0.1:9',
      GITHUB_EVENT_PATH: join(this.dir, 'event.json'),
      GITHUB_WORKSPACE: join(this.dir, 'workspace'),
      RUNNER_TEMP: join(this.dir, 'temp'),
      RUNNER_TOOL_CACHE: join(this.dir, 'tools'),
      // Tests count what workers compile; this machine would now and then be quicker.
      DISTMESH_NO_ADAPT: '1',
      ...env,
    }
  }

  /** Runs the action's main.js with a workflow's `with:`, its expressions filled in from `context`. */
  async main(given, context = {}) {
    this.inputs = { ...this.#defaults(context), ...filled(given, context) }
    return this.#step('main.js')
  }

  async post() {
    return this.#step('post.js')
  }

  /** Starts main.js without waiting for its end. */
  startMain(given, context = {}) {
    this.inputs = { ...this.#defaults(context), ...filled(given, context) }
    return this.#spawn('main.js')
  }

  /** A later `run:` step: it has what the action left in environment and path, and neither inputs nor tokens. */
  async run(script, env = {}) {
    return this.#process('bash', ['-e', '-c', script], { ...this.#jobEnv(), ...env }, this.env.GITHUB_WORKSPACE).ended
  }

  /** Everything that the job wrote down for others to read, the log's masks left out: the runner swallows those. */
  everything() {
    const masks = /^::add-mask::.*$/gm
    const files = [...walk(join(this.dir, 'temp')), ...walk(this.env.GITHUB_WORKSPACE)].map((file) => readFileSync(file, 'utf8'))
    const kept = [this.exported, this.outputs, this.state, this.path, this.summary].map((part) => JSON.stringify(part))
    return [this.log.replaceAll(masks, ''), ...kept, ...files].join('\n')
  }

  project(source) {
    cpSync(source, this.env.GITHUB_WORKSPACE, { recursive: true })
  }

  /** Ends what a failed test left running, then removes everything. */
  remove() {
    for (const child of this.children) if (child.exitCode === null) child.kill('SIGTERM')
    for (const lock of walk(join(this.dir, 'temp')).filter((file) => file.endsWith('primary.lock'))) {
      const pid = Number(readFileSync(lock, 'utf8'))
      if (pid > 1 && !unlocked(lock)) process.kill(pid)
    }
    rmSync(this.dir, { recursive: true, force: true })
  }

  #defaults(context) {
    const { inputs } = parseYaml(readFileSync(join(this.action, 'action.yml'), 'utf8'))
    const defaults = Object.entries(inputs).map(([name, input]) => [name, input.default ?? ''])
    return filled(Object.fromEntries(defaults), context)
  }

  #jobEnv() {
    return { ...this.env, ...this.exported, PATH: [...[...this.path].reverse(), this.env.PATH].join(':') }
  }

  async #step(file) {
    const started = this.#spawn(file)
    return started.ended
  }

  #spawn(file) {
    const files = Object.fromEntries(FILES.map((name) => [name, join(this.dir, `${name}-${file}`)]))
    for (const path of Object.values(files)) writeFileSync(path, '')
    const inputs = Object.entries(this.inputs).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value])
    const state = Object.entries(this.state).map(([name, value]) => [`STATE_${name}`, value])
    const env = { ...this.#jobEnv(), ...this.actionEnv, ...files, ...Object.fromEntries([...inputs, ...state]) }
    const started = this.#process(process.execPath, [join(this.action, file)], env, this.env.GITHUB_WORKSPACE)
    const ended = started.ended.then((result) => {
      this.#collect(files)
      return result
    })
    return { ...started, ended }
  }

  #process(program, args, env, cwd) {
    const child = spawn(program, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    this.children.push(child)
    const written = { text: '' }
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part) => {
        written.text += part
        this.log += part
      })
    }
    const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal, log: written.text })))
    return { child, ended, written }
  }

  #collect(files) {
    const read = (name) => readFileSync(files[name], 'utf8')
    Object.assign(this.outputs, assignments(read('GITHUB_OUTPUT')))
    Object.assign(this.exported, assignments(read('GITHUB_ENV')))
    Object.assign(this.state, assignments(read('GITHUB_STATE')))
    this.path.push(...read('GITHUB_PATH').split('\n').filter((line) => line !== ''))
    this.summary += read('GITHUB_STEP_SUMMARY')
  }
}

/** The steps of a workflow file that use this action, as the workflow has them. */
export function stepsOf(workflow) {
  const { jobs } = parseYaml(readFileSync(workflow, 'utf8'))
  const steps = Object.entries(jobs).flatMap(([job, { steps = [] }]) => steps.map((step) => ({ job, ...step })))
  return steps.filter((step) => /\/\.github\/actions\/distmesh(@|$)/.test(step.uses ?? ''))
}

/** `${{ name }}` becomes the context's value; what it does not know is empty, as on GitHub. */
function filled(values, context) {
  const fill = (text) => text.replaceAll(/\$\{\{\s*(.*?)\s*\}\}/g, (_, name) => context[name] ?? '')
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, fill(String(value ?? ''))]))
}

/** `name<<delimiter`, lines, `delimiter`; or `name=value`. */
function assignments(text) {
  const found = {}
  const lines = text.split('\n')
  while (lines.length > 0) {
    const line = lines.shift()
    const [, name, delimiter] = /^([^=]+?)<<(.+)$/.exec(line) ?? []
    if (name) found[name] = lines.splice(0, lines.indexOf(delimiter) + 1).slice(0, -1).join('\n')
    else if (line.includes('=')) found[line.slice(0, line.indexOf('='))] = line.slice(line.indexOf('=') + 1)
  }
  return found
}

/** A session that has ended holds its lock no more; its process id may be another's by now. */
function unlocked(lock) {
  return spawnSync('flock', ['--nonblock', lock, 'true']).status === 0
}

function walk(dir) {
  if (!existsSync(dir)) return []
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name)
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat?.isDirectory()) return walk(path)
    return stat?.isFile() ? [path] : []
  })
}

const FILES = ['GITHUB_OUTPUT', 'GITHUB_ENV', 'GITHUB_PATH', 'GITHUB_STATE', 'GITHUB_STEP_SUMMARY']
