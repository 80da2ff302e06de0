/** What a person is told when a step cannot go on: one sentence, and what to do about it. */
export class Failure extends Error {
  /**
   * @param {string} message what could not be done, and why
   * @param {string} cure what to do about it
   */
  constructor(message, cure) {
    super(message)
    this.cure = cure
  }

  toString() {
    return `${this.message}. Try: ${this.cure}`
  }
}
