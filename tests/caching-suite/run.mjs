// Runs the public suite of tests for HTTP caches (npm: http-cache-tests) against a node, and holds what its required tests
// say against declined.txt: `node run.mjs FRESHET-BINARY SUITE-DIRECTORY`. Exit 1 where a test fails that isn't declined.
//
// The suite runs as it is. Two relays stand around the node. In front: the suite configures its own server through the cache,
// by PUT, which a node doesn't take, so that /config and /state go past it. Behind: the suite's server tells requests apart by
// a field of the client, Req-Num, and a node forwards no field of its clients, so that the number sent last for a test is put in.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [binary, suite] = process.argv.slice(2).map(name => path.resolve(name))
const declined = new Map()
let why = ''
for (const line of fs.readFileSync(new URL('declined.txt', import.meta.url), 'utf8').split('\n')) {
  if (line.startsWith('#')) why = line.slice(1).trim()
  else if (line.trim()) declined.set(line.trim(), why)
}

const numbers = new Map()
const testOf = head => /^\S+ \/test\/([^/? ]+)/.exec(head)?.[1]
const [serverPort, nodePort, adminPort, frontPort, backPort] = await freePorts(5)

listen(frontPort, head => {
  const test = testOf(head)
  if (test === undefined) return [serverPort, head]
  numbers.set(test, /^req-num: *(\d+)/im.exec(head)?.[1])
  return [nodePort, head]
})
listen(backPort, head => {
  const number = numbers.get(testOf(head))
  return [serverPort, number === undefined ? head : `${head}\r\nReq-Num: ${number}`]
})

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'caching-suite-'))
fs.mkdirSync(path.join(dir, 'cache'))
// What an origin doesn't say is not to be guessed: many of the tests rely on that. Of several tests of failures at once the
// node takes the origin to be down for a moment: the others wait for that to pass.
fs.writeFileSync(path.join(dir, 'freshet.toml'), `
node.name = "suite"
node.urls = ["http://127.0.0.1:${nodePort}/"]
http.listen = ["127.0.0.1:${nodePort}"]
http.drain_timeout = "1s"
admin.listen = "127.0.0.1:${adminPort}"
origin.url = "http://127.0.0.1:${backPort}/"
origin.patience = "3s"
cache.disk = "${dir}/cache"
cache.disk_size = "1 GiB"
cache.revalidate = "0s"
`)

const children = []
process.on('exit', () => children.forEach(child => child.kill()))
const quiet = { cwd: suite, stdio: ['ignore', 'ignore', 'ignore'] }
children.push(spawn('node', ['server/server.mjs'], { ...quiet, env: { ...process.env, npm_config_protocol: 'http', npm_config_port: serverPort, npm_config_pidfile: path.join(dir, 'pid') } }))
children.push(spawn(binary, ['serve', '--config', path.join(dir, 'freshet.toml')], quiet))
await Promise.all([serverPort, nodePort].map(answers))

const results = JSON.parse(await run(''))

const { default: groups } = await import(pathToFileURL(path.join(suite, 'tests/index.mjs')))
const isRequired = test => (test.kind ?? 'required') === 'required' && !test.browser_only
const required = groups.flatMap(group => group.tests).filter(isRequired).map(test => test.id)
const fails = id => results[id] !== true
// All tests run at once, and while the failures of some have the node take the origin to be down, others get what is stale:
// what fails beside them counts once it has failed alone.
for (const id of required.filter(id => fails(id) && !declined.has(id))) {
  // A mark, and a reason where it failed.
  if (/ - $/.test((await run(id)).trimEnd() + ' ')) results[id] = true
}
const failed = required.filter(fails)
const wrong = failed.filter(id => !declined.has(id))
console.log(`${required.length - failed.length} of ${required.length} required tests; ${failed.length - wrong.length} declined`)
for (const id of wrong) console.log(`FAILED ${id}: ${JSON.stringify(results[id])}`)
for (const id of declined.keys()) if (!failed.includes(id)) console.log(`declined, but passes: ${id}`)
await Promise.all(children.map(child => new Promise(resolve => {
  child.on('exit', resolve)
  child.kill()
})))
fs.rmSync(dir, { recursive: true })
process.exit(wrong.length > 0 ? 1 : 0)

/** What the suite prints of one test, or of all. */
async function run (id) {
  const env = { ...process.env, npm_config_base: `http://127.0.0.1:${frontPort}`, npm_config_id: id, npm_package_config_id: '' }
  const cli = spawn('node', ['--no-warnings', 'cli.mjs'], { cwd: suite, stdio: ['ignore', 'pipe', 'inherit'], env })
  let output = ''
  for await (const data of cli.stdout) output += data
  return output
}

/** Ports that were free just now. */
async function freePorts (count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise(resolve => {
    const server = net.createServer().listen(0, '127.0.0.1', () => resolve(server))
  })))
  const ports = servers.map(server => server.address().port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

/** Waits until something listens. */
async function answers (port) {
  for (let tries = 0; tries < 300; tries++) {
    const connected = await new Promise(resolve => {
      const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
      socket.on('error', () => resolve(false))
    })
    if (connected) return
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  throw new Error(`nothing listens on port ${port}`)
}

/** Relays requests, each with its head edited and to the port that `route` gives, and all that comes back. */
function listen (port, route) {
  net.createServer(client => {
    const targets = new Map()
    let pending = Buffer.alloc(0)
    let body = 0
    let current
    const target = port => {
      if (!targets.has(port)) {
        const socket = net.connect(port, '127.0.0.1')
        socket.on('data', data => client.write(data))
        socket.on('close', () => client.destroy())
        socket.on('error', () => client.destroy())
        targets.set(port, socket)
      }
      return targets.get(port)
    }
    client.on('data', data => {
      pending = Buffer.concat([pending, data])
      while (pending.length > 0) {
        if (body > 0) {
          const part = pending.subarray(0, body)
          current.write(part)
          body -= part.length
          pending = pending.subarray(part.length)
          continue
        }
        const end = pending.indexOf('\r\n\r\n')
        if (end < 0) return
        const [to, head] = route(pending.subarray(0, end).toString('latin1'))
        body = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
        pending = pending.subarray(end + 4)
        current = target(to)
        current.write(head + '\r\n\r\n', 'latin1')
      }
    })
    const close = () => targets.forEach(socket => socket.destroy())
    client.on('close', close)
    client.on('error', close)
  }).listen(port, '127.0.0.1')
}
