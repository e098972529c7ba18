// The test of `helm test`: runs a load test of one worker against this process, and exits with 0 if it passed.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const env = process.env;
const bracketed = (host) => (host.includes(':') ? `[${host}]` : host);
const server = env.TEST_API ?? `https://${bracketed(env.KUBERNETES_SERVICE_HOST)}:${env.KUBERNETES_SERVICE_PORT_HTTPS}`;
const tests = `${server}/apis/loadtest.artillery.io/v1alpha1/namespaces/${env.TEST_NAMESPACE}/loadtests`;
const tokenFile = env.TEST_TOKEN_FILE ?? '/var/run/secrets/kubernetes.io/serviceaccount/token';

async function call(method, name, body) {
  const response = await fetch(name ? `${tests}/${name}` : tests, {
    method,
    headers: { authorization: `Bearer ${readFileSync(tokenFile, 'utf8')}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(15_000),
  });
  const reply = await response.json();
  if (!response.ok) throw new Error(`${method} ${name ?? 'loadtests'}: ${response.status} ${reply.message}`);
  return reply;
}

const port = Number(env.TEST_PORT ?? 8080);
let requests = 0;
const target = createServer((_, response) => {
  requests += 1;
  response.end('ok');
});
await new Promise((resolve) => target.listen(port, resolve));

const script = `config:
  target: http://${bracketed(env.POD_IP)}:${port}
  phases: [{duration: 2, arrivalRate: 2}]
scenarios: [{flow: [{get: {url: /}}]}]
`;
const created = await call('POST', undefined, {
  apiVersion: 'loadtest.artillery.io/v1alpha1',
  kind: 'LoadTest',
  metadata: { generateName: `${env.TEST_NAME}-`, labels: JSON.parse(env.TEST_LABELS) },
  spec: { count: 1, testScript: { inline: script }, thresholds: ['http.codes.200 > 0'] },
});
const { name } = created.metadata;
console.log(`created the LoadTest ${env.TEST_NAMESPACE}/${name}`);

const deadline = Date.now() + Number(env.TEST_TIMEOUT) * 1000;
let shown = '';
let status = {};
while (!status.verdict && Date.now() < deadline) {
  status = (await call('GET', name)).status ?? {};
  const ready = status.conditions?.find((c) => c.type === 'Ready');
  const line = ready ? `${status.phase}: ${ready.message}` : 'waiting for the operator';
  if (line !== shown) console.log(line);
  shown = line;
  await sleep(1000);
}
await call('DELETE', name);
console.log(`verdict: ${status.verdict ?? 'none in time'}; requests received: ${requests}`);
process.exit(status.verdict === 'Passed' && requests > 0 ? 0 : 1);
