// The action's inputs, read once and judged here: what is wrong in a workflow is said before anything is done.

import { Failure } from './failure.js'

/**
 * @typedef {object} Inputs
 * @property {'primary' | 'worker'} mode
 * @property {string} secret
 * @property {boolean} trustRun
 * @property {string} session
 * @property {string} rendezvous
 * @property {number | undefined} expectedWorkers
 * @property {number} minWorkers
 * @property {string} waitTimeout
 * @property {boolean} waitHere
 * @property {number | undefined} slots
 * @property {string} name
 * @property {string} untilArtifact
 * @property {string} waitPrimary
 * @property {string} maxLifetime
 * @property {string} version
 * @property {boolean} installDistcc
 * @property {string[]} packages
 * @property {string} token
 */

/**
 * @param {Record<string, string | undefined>} env
 * @returns {Inputs}
 */
export function readInputs(env) {
  const text = (name) => (env[variable(name)] ?? '').trim()
  const read = (name, parse, wanted) => {
    const value = text(name)
    const parsed = parse(value)
    if (parsed === undefined) throw new Failure(`the input ${name} is \`${value}\``, wanted)
    return parsed
  }
  const flag = (name) => read(name, boolean, 'write true or false')
  const count = (name) => read(name, optional(integer), 'write a whole number')
  const time = (name) => read(name, optional(duration), DURATION) ?? ''
  const limit = (name) => (text(name) === 'none' ? '' : time(name))
  const label = (name) => read(name, labelled, LABEL)
  return {
    mode: read('mode', mode, 'write primary on the job that builds, worker on the jobs that help'),
    secret: [env[variable('secret')], env.ENCRYPTION_KEY].find(filledIn) ?? '',
    trustRun: flag('trust-run'),
    session: label('session'),
    rendezvous: text('rendezvous'),
    expectedWorkers: count('expected-workers') ?? undefined,
    minWorkers: count('min-workers') ?? 0,
    waitTimeout: time('wait-timeout') || '60s',
    waitHere: flag('wait-here'),
    slots: count('slots') ?? undefined,
    name: label('name'),
    untilArtifact: text('until-artifact'),
    waitPrimary: limit('wait-primary'),
    maxLifetime: limit('max-lifetime'),
    version: read('version', version, 'write a release like 0.1.0, or source, or installed, or nothing'),
    installDistcc: flag('install-distcc'),
    packages: read('packages', packages, 'write names of packages, separated by spaces'),
    token: text('github-token'),
  }
}

/** The variable by which the runner hands an input to an action. */
function variable(name) {
  return `INPUT_${name.toUpperCase()}`
}

/** A secret is taken as it is, but for one of blanks only: that is what an unset one becomes in some templates. */
function filledIn(value) {
  return (value ?? '').trim() !== ''
}

function mode(value) {
  return ['primary', 'worker'].includes(value) ? value : undefined
}

function boolean(value) {
  return { true: true, false: false, '': false }[value.toLowerCase()]
}

/** An empty input is `null`: given, but not filled in. */
function optional(parse) {
  return (value) => (value === '' ? null : parse(value))
}

function integer(value) {
  return /^\d{1,4}$/.test(value) ? Number(value) : undefined
}

/** distmesh wants a unit; seconds are what other actions take a bare number for. */
function duration(value) {
  if (/^\d+$/.test(value)) return `${value}s`
  return /^(\d+(h|m|s|ms) ?)+$/.test(value) ? value : undefined
}

function labelled(value) {
  return value === '' || /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(value) ? value : undefined
}

function version(value) {
  if (['', 'source', 'installed'].includes(value)) return value
  const release = /^v?(\d+\.\d+\.\d+[-.+A-Za-z0-9]*)$/.exec(value)
  return release ? release[1] : undefined
}

/** Names only: what begins with a dash would be an option of the package manager. */
function packages(value) {
  const names = value.split(/\s+/).filter((name) => name !== '')
  return names.every((name) => /^[A-Za-z0-9][A-Za-z0-9.+:@/_-]*$/.test(name)) ? names : undefined
}

const DURATION = 'write a number of seconds, or a duration like 90s, 5m or 1h30m'
const LABEL = 'use 1 to 64 of the characters A-Z a-z 0-9 . _ and -, and start with a letter or digit'
