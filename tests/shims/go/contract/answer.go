package contract

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// Answer calls a method of the contract by its name, with arguments as they came, and gives its
// result: text as it is, all else as JSON.
func Answer(contract any, function string, args []string) ([]byte, error) {
	method := reflect.ValueOf(contract).MethodByName(function)
	if !method.IsValid() {
		return nil, fmt.Errorf("there is no function %s", function)
	}
	if wanted := method.Type().NumIn(); wanted != len(args) {
		return nil, fmt.Errorf("%s takes %d arguments, not %d", function, wanted, len(args))
	}
	values := []reflect.Value{}
	for position, arg := range args {
		value := reflect.ValueOf(arg)
		if kind := method.Type().In(position); kind.Kind() == reflect.Int32 {
			number, err := strconv.ParseInt(arg, 10, 32)
			if err != nil {
				return nil, err
			}
			value = reflect.ValueOf(number).Convert(kind)
		}
		values = append(values, value)
	}
	results := method.Call(values)
	if err, failed := results[len(results)-1].Interface().(error); failed {
		return nil, err
	}
	if len(results) == 1 {
		return nil, nil
	}
	if text, is := results[0].Interface().(string); is {
		return []byte(text), nil
	}
	return json.Marshal(results[0].Interface())
}
