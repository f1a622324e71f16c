/**
 * The program that times calls: reads a CallPlan from stdin, runs it, and prints an array of Timed. It is entered
 * into a node's namespaces once, so that entering them is not part of any measurement.
 */
import { readFileSync } from 'node:fs';
import { runPlan, type CallPlan } from './calls.ts';
import { openSpawner } from './spawn.ts';

const plan = JSON.parse(readFileSync(0, 'utf8')) as CallPlan;
process.stdout.write(JSON.stringify(runPlan(plan, openSpawner(plan.environment))));
