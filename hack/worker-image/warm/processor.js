module.exports = { begin: async (context) => { context.vars.begun = true; } };
