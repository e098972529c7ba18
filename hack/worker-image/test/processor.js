module.exports = {
  choose: (context, events, done) => {
    events.emit('counter', 'test.chosen', 1);
    context.vars.chosen = 'cjs';
    done();
  },
};
