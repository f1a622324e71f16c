import * as z from 'zod';
import { celRules } from './rules.ts';

/** What a label's value may be in a selector; the apiserver judges labels themselves. */
const LabelValue = z.string().max(63);
const LabelKey = z.string().min(1).max(317);

const Expression = z
  .object({
    key: LabelKey,
    operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
    values: z.array(LabelValue).max(64).optional(),
  })
  .meta(
    celRules({
      rule:
        "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : " +
        '!has(self.values) || self.values.size() == 0',
      message: 'values must be given for In and NotIn, and must not be for Exists and DoesNotExist',
    }),
  );

/** A selector of labels as Kubernetes has it; one without requirements selects everything. */
export const LabelSelector = z.object({
  matchLabels: z.record(LabelKey, LabelValue).optional(),
  matchExpressions: z.array(Expression).max(32).optional(),
});
export type LabelSelector = z.output<typeof LabelSelector>;

/** The labels of an object. */
export type Labels = Readonly<Record<string, string>>;
