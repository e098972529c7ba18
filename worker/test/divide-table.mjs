// Prints the number of requests per phase of one test for 1, 2, 3, 7 and 16 workers, with one thread each and with two, and how
// many virtual users the workers planned and counted. With `multiply` each worker runs the whole script, without the plugin.
//   node test/divide-table.mjs [multiply] [WORKERS..]
// ARTILLERY selects another installation of Artillery: a node_modules folder.
import { countValues, PHASES, pluginsFor, runTest, scriptOfPhases } from './helpers.mjs';

const names = PHASES.map(({ name }) => name);
const print = (...cells) => console.log(cells.map((cell) => String(cell).padStart(14)).join(''));
const options = process.argv.slice(2);
const environment = options.includes('multiply') ? { ARTILLERY_PLUGINS: pluginsFor('results') } : {};
const counts = options.filter((option) => option !== 'multiply').map(Number);
const sum = (all) => all.reduce((total, number) => total + number, 0);
print('workers', 'threads', ...names, 'all', 'planned', 'counted', 'max delay ms', 'rows', 'used once', 'by one worker', 'failed');
for (const threads of [1, 2]) {
  for (const count of counts.length > 0 ? counts : [1, 2, 3, 7, 16]) {
    const { requests, workers } = await runTest({ script: scriptOfPhases(), workers: count, threads, environment });
    const phases = countValues(requests.map(({ phase }) => phase));
    const rows = Object.values(countValues(requests.map(({ row }) => row)));
    const rowsByWorker = Object.keys(countValues(requests.map(({ row, worker }) => `${row} ${worker}`))).length;
    const failed = workers.filter(({ code }) => code !== 0).length;
    const once = rows.filter((times) => times === 1).length;
    const inPhases = names.map((name) => phases[name] ?? 0);
    const snapshots = workers.map(({ snapshot }) => snapshot).filter(Boolean);
    const planned = sum(snapshots.map(({ load }) => load[0]));
    const counted = sum(snapshots.map(({ counters }) => counters['vusers.created'] + (counters['vusers.skipped'] ?? 0)));
    const delay = Math.max(...snapshots.map((snapshot) => snapshot.delay?.[2] ?? 0));
    print(count, threads, ...inPhases, requests.length, planned, counted, delay, rows.length, once, rowsByWorker === rows.length, failed);
  }
}
