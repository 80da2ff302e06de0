// How an action speaks with GitHub's runner: files that the runner reads when the step has ended, and commands on standard output.

import { randomUUID } from 'node:crypto'
import { appendFileSync, readFileSync } from 'node:fs'

import { Failure } from './failure.js'

/** The runner's side of a step. It gets environment and output as arguments, so that a test can look at both. */
export class Runner {
  /**
   * @param {Record<string, string | undefined>} env
   * @param {{ write(text: string): unknown }} out
   */
  constructor(env, out) {
    this.env = env
    this.out = out
  }

  say(text) {
    this.out.write(`${text}\n`)
  }

  notice(text) {
    this.#annotate('notice', text)
  }

  warn(text) {
    this.#annotate('warning', text)
  }

  error(text) {
    this.#annotate('error', text)
  }

  /** Keeps a value out of the log. The runner masks what it is told line by line. */
  mask(value) {
    const lines = value.split(/\r?\n/).filter((line) => line.trim() !== '')
    for (const line of lines) this.say(`::add-mask::${escapeData(line)}`)
  }

  /** Folds what `body` writes under a title. */
  async group(title, body) {
    this.say(`::group::${escapeData(title)}`)
    try {
      return await body()
    } finally {
      this.say('::endgroup::')
    }
  }

  /** Shows text of others: nothing in it is taken for a command. */
  quote(text) {
    const token = randomUUID()
    this.say(`::stop-commands::${token}`)
    this.say(text)
    this.say(`::${token}::`)
  }

  output(name, value) {
    this.#append('GITHUB_OUTPUT', assignment(name, value))
  }

  /** Sets a variable for the steps that follow. Every one of them can read it: nothing secret goes here. */
  exportVariable(name, value) {
    this.#append('GITHUB_ENV', assignment(name, value))
  }

  addPath(dir) {
    this.#append('GITHUB_PATH', `${dir}\n`)
  }

  /** Keeps a value for post.js. */
  saveState(name, value) {
    this.#append('GITHUB_STATE', assignment(name, value))
  }

  state(name) {
    return this.env[`STATE_${name}`] ?? ''
  }

  /** Adds to the page of the run; a runner without one is no reason to fail. */
  summarize(markdown) {
    if (this.env.GITHUB_STEP_SUMMARY) this.#append('GITHUB_STEP_SUMMARY', `${markdown}\n`)
  }

  /** The event that started the run; empty if it cannot be read. */
  event() {
    try {
      return JSON.parse(readFileSync(this.env.GITHUB_EVENT_PATH, 'utf8'))
    } catch {
      return {}
    }
  }

  #annotate(level, text) {
    this.say(`::${level} title=distmesh::${escapeData(text)}`)
  }

  #append(variable, text) {
    const file = this.env[variable]
    if (!file) {
      throw new Failure(`${variable} is not set`, 'run this as an action of a GitHub workflow, on a runner that is not outdated')
    }
    appendFileSync(file, text)
  }
}

/** Runs a step's body; whatever stops it becomes one annotation and a red step. */
export async function step(runner, body) {
  try {
    await body(runner)
  } catch (error) {
    process.exitCode = 1
    if (error instanceof Failure) {
      runner.error(error.toString())
      return
    }
    runner.error(`the action has a fault: ${error.message}. Try: report it with the lines above`)
    runner.quote(error.stack)
  }
}

/** A line a value: a delimiter that cannot be guessed lets the value have any text. */
function assignment(name, value) {
  const delimiter = `end_${randomUUID()}`
  return `${name}<<${delimiter}\n${value}\n${delimiter}\n`
}

function escapeData(text) {
  return String(text).replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
}
