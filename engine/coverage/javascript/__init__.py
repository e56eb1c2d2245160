"""What model clients flow through in TypeScript and JavaScript, from where they are made to where they are called."""
