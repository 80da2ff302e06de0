import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'

import { readInputs } from '../lib/inputs.js'
import { ACTION } from './fake-runner.js'
import { parseYaml } from './yaml.js'

function read(given, env = {}) {
  const { inputs } = parseYaml(readFileSync(join(ACTION, 'action.yml'), 'utf8'))
  const all = { ...Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.default ?? ''])), ...given }
  const variables = Object.entries(all).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value])
  return readInputs({ ...Object.fromEntries(variables), ...env })
}

test('the defaults of action.yml are what the code takes for granted', () => {
  const inputs = read({ mode: 'worker', 'github-token': '' })
  assert.deepEqual(inputs, {
    mode: 'worker',
    secret: '',
    trustRun: false,
    session: '',
    rendezvous: '',
    expectedWorkers: undefined,
    minWorkers: 0,
    waitTimeout: '60s',
    waitHere: false,
    slots: undefined,
    name: '',
    untilArtifact: '',
    waitPrimary: '20m',
    maxLifetime: '',
    version: '',
    installDistcc: true,
    packages: [],
    token: '',
  })
})

test('every input that is read is declared, and every declared one is read', () => {
  const { inputs } = parseYaml(readFileSync(join(ACTION, 'action.yml'), 'utf8'))
  const source = readFileSync(join(ACTION, 'lib', 'inputs.js'), 'utf8')
  const named = new Set([...source.matchAll(/(?:text|flag|count|time|limit|label|read|variable)\('([a-z-]+)'/g)].map(([, name]) => name))
  assert.deepEqual([...named].sort(), Object.keys(inputs).sort())
})

test('a number of seconds is a duration, and none is no limit', () => {
  assert.equal(read({ mode: 'primary', 'wait-timeout': '90' }).waitTimeout, '90s')
  assert.equal(read({ mode: 'primary', 'wait-timeout': '1h30m' }).waitTimeout, '1h30m')
  assert.equal(read({ mode: 'worker', 'wait-primary': 'none' }).waitPrimary, '')
  assert.throws(() => read({ mode: 'primary', 'wait-timeout': 'none' }), /the input wait-timeout is `none`/)
})

test('a secret is taken as it is, from the input before the variable; blanks are none', () => {
  assert.equal(read({ mode: 'worker', secret: ' two\nlines ' }).secret, ' two\nlines ')
  assert.equal(read({ mode: 'worker', secret: 'a' }, { ENCRYPTION_KEY: 'b' }).secret, 'a')
  assert.equal(read({ mode: 'worker', secret: ' \n' }, { ENCRYPTION_KEY: 'b' }).secret, 'b')
  assert.equal(read({ mode: 'worker' }, { ENCRYPTION_KEY: '' }).secret, '')
})

test('what is wrong is named, with what to write instead', () => {
  const wrong = {
    mode: 'Worker!',
    'trust-run': 'perhaps',
    'min-workers': '-1',
    'expected-workers': 'many',
    'wait-timeout': 'soon',
    session: 'a b',
    name: '../x',
    version: 'latest',
    packages: 'gcc --allow-downgrades',
  }
  for (const [name, value] of Object.entries(wrong)) {
    const given = { mode: 'primary', [name]: value }
    assert.throws(() => read(given), (error) => error.message.includes(name) && error.message.includes(value) && error.cure !== '')
  }
})

test('a release is named with and without its v', () => {
  assert.equal(read({ mode: 'worker', version: 'v0.1.0' }).version, '0.1.0')
  assert.equal(read({ mode: 'worker', version: '0.2.0-rc.1' }).version, '0.2.0-rc.1')
})

test('packages are names, separated by any blanks', () => {
  assert.deepEqual(read({ mode: 'worker', packages: ' g++-13\n clang-18:arm64 ' }).packages, ['g++-13', 'clang-18:arm64'])
})
