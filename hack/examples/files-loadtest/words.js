module.exports = ['hello'];
