// Other programs, each with no more of this step's environment than it needs.

import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

import { Failure } from './failure.js'

/**
 * The environment for programs that are not distmesh: package managers, cargo with the build scripts of other people. They get
 * neither the run's token nor the inputs, one of which is the secret.
 *
 * @param {Record<string, string | undefined>} env
 */
export function publicEnv(env) {
  const kept = ([name]) => !PRIVATE.some((pattern) => pattern.test(name))
  return Object.fromEntries(Object.entries(env).filter(kept))
}

/** What only this step may know: the run's tokens, the session's secret, the inputs, what was saved for post.js. */
const PRIVATE = [/^ACTIONS_/, /^(GITHUB|GH)_TOKEN$/, /^ENCRYPTION_KEY$/, /^INPUT_/, /^STATE_/]

/**
 * Runs a program; its output goes to the log.
 *
 * @returns {Promise<number>} its exit code
 */
export async function run(program, args, options = {}) {
  return (await start(program, args, 'inherit', options)).code
}

/**
 * Runs a program and takes its standard output; what it says on standard error goes to the log.
 *
 * @returns {Promise<{ code: number, text: string }>}
 */
export async function capture(program, args, options = {}) {
  return start(program, args, ['ignore', 'pipe', options.quiet ? 'ignore' : 'inherit'], options)
}

/** The first program of this name on PATH. */
export function which(name, env) {
  const dirs = (env.PATH ?? '').split(delimiter).filter((dir) => dir !== '')
  return dirs.map((dir) => join(dir, name)).find(isExecutable)
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * @param {{ env: Record<string, string | undefined>, timeoutMs?: number, forwardSignals?: boolean }} options
 * @returns {Promise<{ code: number, text: string }>}
 */
function start(program, args, stdio, { env, timeoutMs, forwardSignals = false }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio, env, timeout: timeoutMs, killSignal: 'SIGTERM' })
    const release = forwardSignals ? passOn(child) : () => {}
    let text = ''
    child.stdout?.setEncoding('utf8').on('data', (part) => (text += part))
    child.on('error', (error) => {
      release()
      reject(new Failure(`${program} cannot be run: ${error.message}`, `install ${program}, or add it to PATH`))
    })
    child.on('close', (code, signal) => {
      release()
      resolve({ code: code ?? SIGNALLED, text, signal })
    })
  })
}

/** GitHub cancels a job by a signal to this process alone: SIGINT, SIGTERM after 7.5 s, and the end 2.5 s later. */
function passOn(child) {
  const signals = ['SIGINT', 'SIGTERM']
  const handlers = signals.map((signal) => [signal, () => child.kill(signal)])
  for (const [signal, handler] of handlers) process.on(signal, handler)
  return () => handlers.forEach(([signal, handler]) => process.off(signal, handler))
}

/** What a shell says of a program that a signal ended, without its number. */
const SIGNALLED = 128
