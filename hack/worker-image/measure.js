// Called by measure.sh: measure.js ROUNDS FOLDER NAME=COMMAND...
// Prints how long each command takes from its start to its first request, once alone and once with four at a time. The target
// is on the loopback interface. The variants alternate, so that other load on the machine affects all of them.
// With BROWSER=true the request is that of a page, by the browser engine.
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');

const [rounds, folder, ...variants] = process.argv.slice(2);
const waiting = new Map();
const target = http.createServer((request, response) => {
  waiting.get(request.url)?.();
  response.end();
});
let runs = 0;

async function start(command) {
  const id = ++runs;
  // Many a second, since Artillery waits for a whole interval before its first virtual user.
  const script = {
    config: { target: `http://127.0.0.1:${target.address().port}`, phases: [{ duration: 5, arrivalRate: 20, maxVusers: 1 }] },
    scenarios: [{ flow: [{ get: { url: `/${id}` } }] }],
  };
  if (process.env.BROWSER) {
    fs.writeFileSync(`${folder}/open.js`, "module.exports.open = (page) => page.goto('');");
    Object.assign(script.config, { target: `${script.config.target}/${id}`, engines: { playwright: {} }, processor: './open.js' });
    script.scenarios = [{ engine: 'playwright', testFunction: 'open' }];
  }
  fs.writeFileSync(`${folder}/${id}.json`, JSON.stringify(script));
  const began = performance.now();
  const asked = new Promise((resolve) => waiting.set(`/${id}`, resolve));
  const child = spawn('sh', ['-c', `exec ${command} run /tmp/measure/${id}.json`], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  await Promise.race([asked, ended.then((code) => Promise.reject(new Error(`${command} ended (${code}) without a request`)))]);
  const took = performance.now() - began;
  child.kill('SIGKILL');
  await ended;
  return took / 1000;
}

target.listen(0, '127.0.0.1', async () => {
  const took = new Map();
  for (let round = 1; round <= rounds; round++) {
    for (const atOnce of [1, 4]) {
      for (const variant of variants) {
        process.stderr.write(`round ${round} of ${rounds}: ${variant.split('=')[0]}, ${atOnce} at once\n`);
        const all = await Promise.all(Array.from({ length: atOnce }, () => start(variant.slice(variant.indexOf('=') + 1))));
        const key = `${variant.split('=')[0].padEnd(34)} ${atOnce} at once`;
        took.set(key, [...(took.get(key) ?? []), Math.max(...all)]);
      }
    }
  }
  for (const [key, seconds] of took) {
    seconds.sort((a, b) => a - b);
    console.log(`${key}  ${seconds[seconds.length >> 1].toFixed(1)} s   (${seconds.map((s) => s.toFixed(1)).join(' ')})`);
  }
  process.exit();
});
