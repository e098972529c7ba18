// Prints the number of requests per phase of one test for 1, 2, 3, 7 and 16 workers, with one thread each and with two.
//   node test/divide-table.mjs [WORKERS..]
// ARTILLERY selects another installation of Artillery: a node_modules folder.
import { countValues, PHASES, runTest, scriptOfPhases } from './helpers.mjs';

const names = PHASES.map(({ name }) => name);
const print = (...cells) => console.log(cells.map((cell) => String(cell).padStart(13)).join(''));
const counts = process.argv.slice(2).map(Number);
print('workers', 'threads', ...names, 'all', 'rows', 'used once', 'by one worker', 'failed');
for (const threads of [1, 2]) {
  for (const count of counts.length > 0 ? counts : [1, 2, 3, 7, 16]) {
    const { requests, workers } = await runTest({ script: scriptOfPhases(), workers: count, threads });
    const phases = countValues(requests.map(({ phase }) => phase));
    const rows = Object.values(countValues(requests.map(({ row }) => row)));
    const rowsByWorker = Object.keys(countValues(requests.map(({ row, worker }) => `${row} ${worker}`))).length;
    const failed = workers.filter(({ code }) => code !== 0).length;
    const once = rows.filter((times) => times === 1).length;
    const inPhases = names.map((name) => phases[name] ?? 0);
    print(count, threads, ...inPhases, requests.length, rows.length, once, rowsByWorker === rows.length, failed);
  }
}
