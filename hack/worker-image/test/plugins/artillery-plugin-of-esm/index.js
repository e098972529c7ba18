export const LEGACY_METRICS_FORMAT = false;
const value = await Promise.resolve('here');
export class Plugin {
  cleanup(done) {
    console.log('of-esm is', value);
    done();
  }
}
