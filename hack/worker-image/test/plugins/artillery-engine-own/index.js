module.exports = class OwnEngine {
  createScenario(scenario, events) {
    return (context, callback) => {
      events.emit('started');
      events.emit('counter', 'own.steps', scenario.flow.length);
      callback(null, context);
    };
  }
};
