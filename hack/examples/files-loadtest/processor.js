const words = require('./words.js');

module.exports.chooseWord = (request, context, events, done) => {
  request.url = request.url.replace(/\/[^/]*\/([^/]+)$/, `/${words[0]}/$1`);
  done();
};
